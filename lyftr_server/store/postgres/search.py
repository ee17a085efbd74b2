"""Messages that contain q, whatever the case: by the index, and by a scan of what it lacks."""

from typing import Any

from ...records import Message
from ..cursor import Key
from .listing import COLUMNS, Scope, Where, as_messages
from .schema import SLOT_BITS

# Of more matches than this a page walks along the listing: to sort them all would take seconds.
MANY = 20_000


def pattern(q: str) -> str:
    """Return the LIKE pattern of all folded texts that contain q."""
    folded = q.casefold()
    for letter in "\\%_":
        folded = folded.replace(letter, "\\" + letter)
    return f"%{folded}%"


def _matching(where: Where, q: str) -> str:
    """Return a subquery of the seqs that match. One statement: one snapshot of index and tail."""
    like = where.place(pattern(q))
    return f"""(
        SELECT seq FROM search WHERE folded LIKE {like}::text
        UNION ALL
        SELECT tail.seq FROM slots LEFT JOIN indexed USING (slot) CROSS JOIN LATERAL (
            SELECT seq, coalesce(folded, text) AS folded FROM messages
            WHERE seq > (slot::bigint << {SLOT_BITS}) + coalesce(upto, 0)
            AND seq <= (slot::bigint << {SLOT_BITS}) + last OFFSET 0
        ) AS tail WHERE tail.folded LIKE {like}::text
    )"""


async def _many(db: Any, q: str) -> bool:
    """Tell whether so many texts match that to look at messages one by one finds some soon."""
    where = Where()
    matching = _matching(where, q)
    found = await db.fetchval(
        f"SELECT count(*) FROM (SELECT FROM {matching} AS every LIMIT {MANY}) AS found",
        *where.values,
    )
    return bool(found == MANY)


async def _filtered(db: Any, where: Where, q: str, matches: int | None = None) -> str:
    """Return the condition that a text contains q: by the index, or by the text itself.

    `matches`: how many do, where that is known.
    """
    if matches >= MANY if matches is not None else await _many(db, q):
        return f"coalesce(m.folded, m.text) LIKE {where.place(pattern(q))}::text"
    return f"seq IN {_matching(where, q)}"


async def count(db: Any, scope: Scope, q: str) -> int:
    """Return how many rows of the scope match."""
    where = scope.where()
    if scope == Scope():
        # What has no message is not in the index.
        sql = f"SELECT count(*) FROM {_matching(where, q)} AS every"
    else:
        filtered = await _filtered(db, where, q)
        sql = f"SELECT count(*) FROM messages AS m WHERE {where} AND {filtered}"
    return int(await db.fetchval(sql, *where.values))


async def at_offset(
    db: Any, scope: Scope, q: str, offset: int, limit: int, total: int
) -> list[Message]:
    """Return some of the scope's `total` matches, from number `offset` on, in its order."""
    matches = total if scope == Scope() else None
    return await _rows(db, scope.where(), q, limit, offset=offset, matches=matches)


async def rows(
    db: Any,
    scope: Scope,
    q: str,
    place: Key,
    limit: int,
    *,
    backward: bool = False,
    inclusive: bool = False,
) -> list[Message]:
    """Return the `limit` matches on one side of a place; ascending in either case."""
    return await _rows(db, scope.side(place, backward, inclusive), q, limit, backward=backward)


async def _rows(
    db: Any,
    where: Where,
    q: str,
    limit: int,
    *,
    offset: int = 0,
    backward: bool = False,
    matches: int | None = None,
) -> list[Message]:
    filtered = await _filtered(db, where, q, matches)
    order = " DESC" if backward else ""
    found = await db.fetch(
        f"SELECT {COLUMNS} FROM messages AS m WHERE {where} AND {filtered}"
        f" ORDER BY instant{order}, message_id{order}"
        f" LIMIT {where.place(limit)}::bigint OFFSET {where.place(offset)}::bigint",
        *where.values,
    )
    messages = as_messages(found)
    return messages[::-1] if backward else messages
