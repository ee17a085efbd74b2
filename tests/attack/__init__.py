"""What a client without a key may do to a server, and how long a delivery waits beside it."""
