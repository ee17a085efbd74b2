"""Messages in the order of storing: what comes after a place.

A place is a number for each slot, joined by dots: how far its rows were seen. Within a slot rows
come into sight in the order of their numbers, so nothing is missed and nothing comes twice; between
slots the database's clock decides.
"""

import heapq
import re
from typing import Any

from ...records import Message
from ...schema import Fault, Invalid, MessageQuery
from . import listing
from .listing import snapshot
from .schema import SLOT_BITS
from .search import pattern

BEGINNING = "0"
_PLACE = re.compile(r"[0-9]{1,13}(\.[0-9]{1,13}){0,999}")


async def head(db: Any) -> str:
    """Return the place behind the newest message."""
    return _written(await _heads(db))


async def follow(
    db: Any, query: MessageQuery, after: str, limit: int
) -> tuple[list[Message], list[str]]:
    """Return rows() as of one moment."""
    async with snapshot(db):
        return await rows(db, query, after, limit)


async def rows(
    db: Any, query: MessageQuery, after: str, limit: int, *, name: str = "after"
) -> tuple[list[Message], list[str]]:
    """Return the first messages after a place that fit, and the place behind each of them.

    Fewer than `limit` say that no other is stored now. Of the query its filters count. Invalid for
    a place that this database never gave; the parameter that had it is called `name`.
    """
    heads = await _heads(db)
    place = _checked(after, heads, name)
    streams = [
        await _rows(db, query, slot, seen, limit)
        for slot, seen in enumerate(place)
        if seen < heads[slot]
    ]
    found: list[Message] = []
    places: list[str] = []
    for row in heapq.merge(*streams, key=lambda row: row["created_at"]):
        seq, _, *fields = row
        place[seq >> SLOT_BITS] = seq & ((1 << SLOT_BITS) - 1)
        found.append(Message(*fields))
        places.append(_written(place))
        if len(found) == limit:
            break
    return found, places


async def _rows(db: Any, query: MessageQuery, slot: int, seen: int, limit: int) -> list[Any]:
    first = slot << SLOT_BITS
    where = listing.scope(query).where(first + seen, first + (1 << SLOT_BITS), limit)
    if query.q:
        where.add("coalesce(m.folded, m.text) LIKE {}::text", pattern(query.q))
    found: list[Any] = await db.fetch(
        f"SELECT seq, created_at, {listing.COLUMNS} FROM messages AS m"
        f" WHERE seq > $1::bigint AND seq < $2::bigint AND {where}"
        " ORDER BY seq LIMIT $3::bigint",
        *where.values,
    )
    return found


async def _heads(db: Any) -> list[int]:
    """Return how far each slot's rows go, by the slots' numbers from 0 on."""
    found = dict(await db.fetch("SELECT slot, last FROM slots"))
    return [found.get(slot, 0) for slot in range(max(found, default=-1) + 1)]


def _checked(after: str, heads: list[int], name: str) -> list[int]:
    """Return the place, a number for each slot. A restored backup may be older than it is."""
    if _PLACE.fullmatch(after):
        place = [int(n) for n in after.split(".")]
        known = [*heads, *([0] * (len(place) - len(heads)))]
        if all(n <= last for n, last in zip(place, known, strict=False)):
            return [*place[: len(heads)], *([0] * (len(heads) - len(place)))]
    msg = "must be a place in this database's order of storing"
    raise Invalid(Fault(("query", name), msg, "place_invalid"))


def _written(place: list[int]) -> str:
    return ".".join(map(str, place)) or BEGINNING
