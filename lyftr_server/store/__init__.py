"""The message store, shared by all handlers of an application."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    """Return the store that DATABASE_URL names, not open yet. Unusable without its library.

    `on_fatal` hears why, when nothing more can be acknowledged by this process.
    """
    options: dict[str, Any] = {
        "dedupe_by": config.dedupe_by,
        "queue_limit": config.queue_limit,
        "refused_limits": Limits(bodies=config.refused_limit),
        "policy": Policy(config.retention_days, config.tombstone_days),
        "on_fatal": on_fatal,
    }
    # An engine is loaded when it is asked for: nobody waits for another's libraries.
    if isinstance(config.database, Path):
        from .sqlite.store import SqliteStore

        return SqliteStore(config.database, **options)
    try:
        from .postgres.store import PostgresStore
    except ModuleNotFoundError as error:
        raise Unusable(
            f"PostgreSQL needs {error.name}: pip install 'lyftr-server[postgres]'"
        ) from error
    return PostgresStore(config.database, wait_seconds=config.wait_seconds, **options)
