"""What the store raises."""


class StoreError(Exception):
    """The database cannot do what it was asked; the words are for the operator's log."""


class Unopenable(StoreError):
    """The database cannot be opened; nothing was written to it."""


class QueueFull(Exception):
    """As many messages as allowed wait for a commit already."""
