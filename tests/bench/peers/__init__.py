"""The servers that ours is compared with: written to be good, not to lose."""
