"""The database that a command reads, a file or a server's, beside a server of ours or not."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from ..config import ConfigError
from ..records import Message
from ..schema import MessageQuery


class Database(Protocol):
    """Each method raises Unopenable and StoreError."""

    @property
    def name(self) -> str: ...

    def require_current(self) -> None:
        """Return if the schema is this version's."""

    def rows(self, query: MessageQuery) -> Iterator[Sequence[Message]]:
        """Yield all rows that match, in the listing's order, some at a time."""

    def count(self, query: MessageQuery) -> int | None:
        """Return how many rows match, None when that takes as long as to read them."""

    def verify(self, deep: bool, tick: Callable[[], None]) -> tuple[int, Sequence[str]]:
        """Return how many messages there are, and all that is wrong, in words."""

    def repair(self, say: Callable[[str], None], tick: Callable[[], None]) -> None:
        """Make all anew that is derived from the messages, while no server runs."""

    def figures(self) -> str:
        """Return how much there is beside the messages, in words."""


def reading(place: Path | str) -> AbstractContextManager[Database]:
    """Return the database there, to be read. ConfigError without its library."""
    if isinstance(place, Path):
        from ..store.sqlite.offline import DatabaseFile

        return DatabaseFile(place)
    try:
        from ..store.postgres.offline import DatabaseServer
    except ModuleNotFoundError as error:
        raise missing(error) from error
    return DatabaseServer(place)


def own_file(place: Path | str) -> Path | None:
    """Return the database's file, None for a server's."""
    return place if isinstance(place, Path) else None


def missing(error: ModuleNotFoundError) -> ConfigError:
    """Return what to say when PostgreSQL's library is not there."""
    return ConfigError(
        {"DATABASE_URL": f"needs {error.name}: pip install 'lyftr-server[postgres]'"}
    )
