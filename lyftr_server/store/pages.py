"""Pages of the listing: what is on one, and what leads on from it."""

import sys
from collections.abc import Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from ..records import Message, StoredEvent, StoredRefusal
from ..schema import MessageQuery
from .cursor import FIRST, Key, Position, encode, key_of

# Of texts in a chunk of an export, and of bodies on a page of events or of refused bodies.
CHUNK_BYTES = 256 << 10

R = TypeVar("R")
B = TypeVar("B", StoredEvent, StoredRefusal)


class Page(NamedTuple):
    """A page of the listing, with the cursors of the pages beside it (None: there is none)."""

    data: Sequence[Message]
    total: int
    next_cursor: str | None
    previous_cursor: str | None


class Rows(NamedTuple, Generic[R]):
    """A page of events or of refused bodies."""

    data: Sequence[R]
    next_cursor: str | None


class Found(NamedTuple):
    """A page's rows, and the places to go on from on either side (None: there is nothing)."""

    data: list[Message]
    next: Key | None
    previous: Key | None


def cut_to_fit(rows: list[Message]) -> bool:
    """Drop all but the first rows, as many as a client that does not read may hold in memory.

    Return whether there were others. They go at once: an export rests for as long as its client.
    """
    size = 0
    for number, row in enumerate(rows, 1):
        size += sys.getsizeof(row.text)
        if size > CHUNK_BYTES:
            others = number < len(rows)
            del rows[number:]
            return others
    return False


def bounded(rows: Iterable[B], limit: int) -> tuple[list[B], bool]:
    """Return the first rows, as many as a page may have, and whether there are others.

    It ends early behind CHUNK_BYTES: one alone may be as large as a body may be, and a hundred of
    them as much as the machine has. No more of `rows` is taken than that.
    """
    data: list[B] = []
    size = 0
    for row in rows:
        if len(data) == limit or size >= CHUNK_BYTES:
            return data, True
        data.append(row)
        size += sys.getsizeof(row.body)
    return data, False


def found(data: list[Message], place: Key, *, more: bool, before: bool) -> Found:
    """Name the places that lead on from `data`, or from `place` where no row is left.

    No message_id has U+0000, so nothing lies between `place` and the same with it: the rows before
    that one include the row at `place`.
    """
    if data:
        first, last = key_of(data[0]), key_of(data[-1])
    else:
        first, last = Key(place.instant, place.message_id + "\0"), FIRST
    return Found(data, last if more else None, first if before else None)


def beside(data: list[Message], start: Position, *, more: bool, behind: bool) -> Found:
    """The same for a page on one side of a place: more rows ahead, rows behind."""
    if start.backward:
        more, behind = behind, more
    return found(data, start.key, more=more, before=behind)


def page_of(found: Found, total: int, query: MessageQuery, signing: bytes) -> Page:
    """Make the page that was asked for of what was found, in the ascending order."""

    def token(key: Key | None, backward: bool) -> str | None:
        return key and encode(signing, Position(backward, key), query)

    later, earlier = token(found.next, False), token(found.previous, True)
    if query.order == "desc":
        return Page(found.data[::-1], total, earlier, later)
    return Page(found.data, total, later, earlier)
