"""What is stored, as it is stored, for any number of readers: each row is read once for all."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

from .records import Message
from .schema import MessageQuery
from .store import MessageStore, StoreError, instant

READERS = 100
# From a commit to the next look at most so long: many commits are one look.
PAUSE_SECONDS = 0.025
# Commits that nobody told of: other servers on the same database, deliveries whose sender left.
POLL_SECONDS = 1.0
HEARTBEAT_SECONDS = 15.0
# A reader that is further behind than this has to begin again from its place.
KEPT_ROWS = 4096
READ_ROWS = 500
# For readers that read to take their leave when the feed ends; the others are cut.
LEAVE_SECONDS = 0.5

_EVERYTHING = MessageQuery()


class Behind(Exception):
    """The reader was too slow; it may resume from its last place."""


class FeedRow:
    """A message and the place behind it; many readers share it. Without a message, other news."""

    __slots__ = ("_event", "erased", "message", "place")

    def __init__(self, place: str, message: Message | None, erased: str | None = None) -> None:
        self.place = place
        self.message = message
        self.erased = erased  # the id of a message that is gone
        self._event = b""

    @property
    def event(self) -> bytes:
        """The message, or that it is gone, as a server-sent event, made for the first who asks."""
        if not self._event and self.message is not None:
            self._event = self._as_event("message", self.message.as_json())
        elif not self._event and self.erased is not None:
            self._event = self._as_event("erased", {"message_id": self.erased})
        return self._event

    def _as_event(self, name: str, content: dict[str, Any]) -> bytes:
        data = json.dumps(content, ensure_ascii=False)
        return f"event: {name}\nid: {self.place}\ndata: {data}\n\n".encode()


class Shown(NamedTuple):
    """Messages with the place behind each. Without any, `place` alone is where the reader is."""

    rows: list[FeedRow]
    place: str | None = None


class Feed:
    """The newest rows, in the order of storing, as long as anybody reads."""

    def __init__(self, store: MessageStore) -> None:
        self._store = store
        store.on_erased = self.erased
        self._readers: set[asyncio.Task[object]] = set()
        self._rows: deque[FeedRow] = deque(maxlen=KEPT_ROWS)
        self._next = 0  # rows seen so far, those that left the deque too
        self._place: str | None = None  # behind the newest row seen
        self._turn = asyncio.Lock()
        self._gone: set[str] = set()  # erased since the read that is under way began
        self._woken = asyncio.Event()
        self._moved = asyncio.Event()  # another one for each move
        self._watch: asyncio.Task[None] | None = None
        self._ended = False

    @property
    def readers(self) -> int:
        return len(self._readers)

    @property
    def full(self) -> bool:
        return len(self._readers) >= READERS

    def wake(self) -> None:
        """Something was stored."""
        self._woken.set()

    def erased(self, ids: Sequence[str]) -> None:
        """Forget messages that were erased, and tell whoever reads."""
        if self._place is None:
            return
        gone = set(ids)
        self._gone |= gone
        kept = (_without(row, gone) for row in self._rows)
        self._rows = deque(kept, maxlen=KEPT_ROWS)
        self._rows.extend(FeedRow(self._place, None, message_id) for message_id in ids)
        self._next += len(ids)
        self._announce()

    def end(self) -> None:
        """End every reader: at once those that read, and a moment later those that do not."""
        self._ended = True
        self._announce()
        if self._readers:
            asyncio.get_running_loop().call_later(LEAVE_SECONDS, self._cut)

    async def follow(self, query: MessageQuery, after: str | None) -> AsyncGenerator[Shown, None]:
        """Yield what fits the query and was stored after a place, or from now on; until end().

        Something is yielded every HEARTBEAT_SECONDS at least. Behind; StoreError; Invalid for a
        place that the store never gave.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a reader is a task")
        self._readers.add(task)
        try:
            if self._watch is None:
                self._watch = asyncio.create_task(self._run())
                self._watch.add_done_callback(self._unwatched)
            await self._catch_up()
            fits = _filter(query)
            number = self._next
            if after is None:
                yield Shown([], self._place)
            else:
                async for batch, number in self._resume(query, after, fits):  # noqa: B007
                    yield batch
            async for batch in self._live(number, fits):
                yield batch
        finally:
            self._readers.discard(task)
            if not self._readers and self._watch is not None:
                self._watch.cancel()
                self._forget()

    async def _resume(
        self, query: MessageQuery, after: str, fits: Callable[[Message], bool]
    ) -> AsyncGenerator[tuple[Shown, int], None]:
        """Yield what the store has, until the feed's own rows go on from there: from a number."""
        heard = self._next
        while not self._ended:
            await self._catch_up()
            number, place = self._next, self._place
            # What has gone since the last read; the reader is still where that was.
            news = self._since(max(heard, self._next - len(self._rows)))
            gone = [each.erased for each in news if each.erased is not None]
            heard = number
            rows = [FeedRow(after, None, message_id) for message_id in gone]
            messages, places = await self._store.follow(query, after, READ_ROWS)
            rows += map(FeedRow, places, messages)
            if len(messages) == READ_ROWS:
                after = places[-1]
                yield Shown(rows), number
                continue
            # What was stored between the two reads is in both. Once the feed has caught up with
            # the second, all that it sees later is new.
            await self._catch_up()
            known = {message.message_id for message in messages}
            rows += [
                row
                for row in self._since(number)
                if row.message is None or row.message.message_id not in known
                if _shown(row, fits)
            ]
            yield Shown(rows, None if rows else place), self._next
            return

    async def _live(
        self, number: int, fits: Callable[[Message], bool]
    ) -> AsyncGenerator[Shown, None]:
        silent_since = asyncio.get_running_loop().time()
        while not self._ended:
            moved = self._moved
            if number < self._next:
                rows = [row for row in self._since(number) if _shown(row, fits)]
                number = self._next
                if rows:
                    yield Shown(rows)
                    silent_since = asyncio.get_running_loop().time()
                    continue
            if asyncio.get_running_loop().time() - silent_since >= HEARTBEAT_SECONDS:
                yield Shown([], self._place)
                silent_since = asyncio.get_running_loop().time()
                continue
            await moved.wait()

    def _since(self, number: int) -> list[FeedRow]:
        first = self._next - len(self._rows)
        if number < first:
            raise Behind
        return list(islice(self._rows, number - first, None))

    # -- reading the store, once for all

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._woken.wait()
            self._woken.clear()
            with suppress(StoreError):  # it is counted, and looked again with the next commit
                await self._catch_up()
            # Readers look at the clock too, when nothing has come.
            self._announce()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _catch_up(self) -> None:
        """Take in all that is stored by now."""
        async with self._turn:
            if self._place is None:
                self._place = await self._store.head()
                return
            while True:
                self._gone = set()
                messages, places = await self._store.follow(_EVERYTHING, self._place, READ_ROWS)
                for message, self._place in zip(messages, places, strict=True):
                    self._rows.append(_without(FeedRow(self._place, message), self._gone))
                self._next += len(messages)
                if len(messages) < READ_ROWS:
                    return

    def _announce(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def _forget(self) -> None:
        """Nobody reads: the next reader begins with what is new then."""
        self._watch = None
        self._rows.clear()
        self._place = None

    def _unwatched(self, watch: "asyncio.Task[None]") -> None:
        if not watch.cancelled():
            self._cut()  # better begun anew than waiting for nothing

    def _cut(self) -> None:
        for task in self._readers:
            task.cancel()


def _without(row: FeedRow, gone: Collection[str]) -> FeedRow:
    """Return the row, or what is left of one that was erased: its place."""
    if row.message is None or row.message.message_id not in gone:
        return row
    return FeedRow(row.place, None)


def _shown(row: FeedRow, fits: Callable[[Message], bool]) -> bool:
    """Whether a reader is told: of what fits, and of all that was erased."""
    return bool(row.event) if row.message is None else fits(row.message)


def _everything(_message: Message) -> bool:
    return True


def _filter(query: MessageQuery) -> Callable[[Message], bool]:
    """Return whether a message fits, as the listing has it."""
    if query.sender is None and query.since is None and query.q is None:
        return _everything
    folded = query.q.casefold() if query.q else None
    since = instant(query.since) if query.since else None

    def fits(message: Message) -> bool:
        if query.sender is not None and message.from_msisdn != query.sender:
            return False
        if since is not None and instant(message.ts) < since:
            return False
        return folded is None or (message.text is not None and folded in message.text.casefold())

    return fits
