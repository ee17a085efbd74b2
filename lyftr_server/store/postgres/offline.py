"""The database for commands that run beside servers of ours, or without any."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

from ...records import Message
from ...schema import MessageQuery
from ..cursor import key_of
from ..errors import StoreError, Unusable
from . import listing, reads, schema, verify
from .connection import Lane
from .hosts import Hosts, host, urls

T = TypeVar("T")

CHUNK_ROWS = 1000
TICK_SECONDS = 0.2
# Whoever waits at a terminal says when it has been enough.
PATIENCE_SECONDS = 7 * 86_400.0


class DatabaseServer:
    """A database on a server, for a caller that runs no loop; a context manager."""

    def __init__(self, url: str) -> None:
        self._lane = Lane(Hosts(url))
        self.name = "postgresql://" + ",".join(host(each) for each in urls(url))
        self._runner = asyncio.Runner()

    def __enter__(self) -> "DatabaseServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._lane.close()
        self._runner.close()

    def run(
        self,
        work: Callable[..., Awaitable[T]],
        *args: Any,
        tick: Callable[[], None] = lambda: None,
    ) -> T:
        """Return what work(connection, *args) does; `tick` is called from time to time meanwhile.

        Unusable; StoreError.
        """

        async def ticking() -> T:
            try:
                await self._lane.open()
            except Unusable:
                raise
            except StoreError as error:  # it may pass by itself
                raise StoreError(str(error)) from error
            running = asyncio.ensure_future(
                self._lane.run(lambda db: work(db, *args), PATIENCE_SECONDS)
            )
            try:
                while not (await asyncio.wait([running], timeout=TICK_SECONDS))[0]:
                    tick()
                return running.result()
            finally:
                running.cancel()

        return self._runner.run(ticking())

    def require_current(self) -> None:
        self.run(_require_current)

    def rows(self, query: MessageQuery) -> Iterator[Sequence[Message]]:
        after, more = None, True
        while more:
            found = self.run(reads.chunk, query, after, CHUNK_ROWS)
            if found:
                yield found
                after = key_of(found[-1])
            more = len(found) == CHUNK_ROWS

    def count(self, query: MessageQuery) -> int | None:
        return None if query.q else self.run(listing.count, listing.scope(query))

    def verify(self, deep: bool, tick: Callable[[], None]) -> tuple[int, Sequence[str]]:
        self.require_current()
        return self.run(verify.verify, deep, tick=tick)

    def repair(self, say: Callable[[str], None], tick: Callable[[], None]) -> None:
        self.require_current()
        say("making all anew that is derived from the messages")
        self.run(verify.repair, tick=tick)

    def figures(self) -> str:
        return self.run(verify.figures)


async def _require_current(db: Any) -> None:
    version = await schema.check(db)
    if version < schema.VERSION:
        raise Unusable(
            f"the database has schema version {version}, and this program reads"
            f" {schema.VERSION}: start the server with it once"
        )
