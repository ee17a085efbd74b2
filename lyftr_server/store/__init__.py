"""The message store, shared by all handlers of an application."""

from collections.abc import Callable

from ..config import Config
from .cursor import instant
from .errors import Fatal, QueueFull, Stopped, StoreError, Unopenable, Unusable
from .limits import Limits, Policy
from .message_store import MessageStore
from .pages import Page, Rows

__all__ = [
    "Fatal",
    "MessageStore",
    "Page",
    "QueueFull",
    "Rows",
    "Stopped",
    "StoreError",
    "Unopenable",
    "Unusable",
    "instant",
    "store_of",
]


def store_of(config: Config, on_fatal: Callable[[str], None]) -> MessageStore:
    """Return the store that DATABASE_URL names, not open yet.

    `on_fatal` hears why, when nothing more can be acknowledged by this process.
    """
    # An engine is loaded when it is asked for: nobody waits for another's libraries.
    from .sqlite.store import SqliteStore

    return SqliteStore(
        config.database_path,
        dedupe_by=config.dedupe_by,
        queue_limit=config.queue_limit,
        refused_limits=Limits(bodies=config.refused_limit),
        policy=Policy(config.retention_days, config.tombstone_days),
        on_fatal=on_fatal,
    )
