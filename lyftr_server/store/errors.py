"""What the store raises."""


class StoreError(Exception):
    """The database cannot do what it was asked; the words are for the operator's log."""


class Fatal(StoreError):
    """Nothing more may be acknowledged by this process: only a new one knows what is stored."""


class Unopenable(StoreError):
    """The database cannot be opened; nothing was written to it. It may pass: try again."""


class Unusable(Unopenable):
    """The database is not one that this program can use, until a person has seen to it."""


class QueueFull(Exception):
    """As many messages as allowed wait for a commit already."""


class Stopped(Exception):
    """The reader went away before its answer was ready."""
