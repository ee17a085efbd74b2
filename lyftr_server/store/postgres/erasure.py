"""Erasure: what is to go is written down first, deleted in pieces, and vacuumed away.

The pieces are short transactions; an erasure goes on after a crash, on any server.
What PostgreSQL keeps all the same (free space within pages, the write-ahead log) is said in
docs/keeping-less.md.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...records import Erased
from ..errors import StoreError
from ..mentions import bare, mentions
from . import tombstones, upkeep
from .schema import SLOT_BITS
from .tombstones import Pads

PIECE_ROWS = 500
# Rows that are looked at for a recipient, or bodies for a number.
SCAN_ROWS = 5_000
SCAN_BODIES = 200
# A row that says what an erasure took waits so long for whoever asked.
DONE_HOURS = 1

# Where a number, a text or an id was: rows, and the samples that the planner has of them.
VACUUMED = (
    "messages",
    "search",
    "events",
    "refused",
    "deltas",
    "sender_counts",
    "sender_day_counts",
    "recipient_counts",
    "erased",
    "erasures",
    "pg_catalog.pg_statistic",
)
# Of the others no column with a text or a number is sampled.
ANALYZED = ("messages", "search")
# Tables of bodies, and their keys.
BODIES = {"events": "seq", "refused": "id"}


class Lost(StoreError):
    """An erasure that was ordered, and that nobody knows any more."""


class Erasure(NamedTuple):
    """What is to go, all of a person's or one message, of what each slot had by then."""

    id: int
    person: str | None
    message_id: str | None
    heads: list[int]


async def order(db: Any, *, person: str | None = None, message_id: str | None = None) -> int:
    """Write down what is to go; return the erasure's id."""
    return int(
        await db.fetchval(
            "INSERT INTO erasures (person, message_id, heads) VALUES ($1, $2, ARRAY("
            " SELECT coalesce(last, 0) FROM generate_series(0, (SELECT max(slot) FROM slots)) AS n"
            " LEFT JOIN slots ON slot = n ORDER BY n)) RETURNING id",
            person,
            message_id,
        )
    )


async def ordered(db: Any) -> list[Erasure]:
    """Return what was written down and is not done."""
    found = await db.fetch(
        "SELECT id, person, message_id, heads FROM erasures WHERE done_at IS NULL ORDER BY id"
    )
    return [Erasure(*row) for row in found]


async def taken(db: Any, erasure_id: int) -> Erased | None:
    """Return what an erasure took, None while it is not done. Lost: no database knows of it.

    It writes, so that no standby lacks anything of it when somebody hears that it is done.
    """
    done = await db.fetchval("SELECT done_at IS NOT NULL FROM erasures WHERE id = $1", erasure_id)
    if done is None:
        raise Lost("the erasure was lost with the primary that it was ordered from")
    if not done:
        return None
    found = await db.fetchrow(
        "UPDATE erasures SET done_at = done_at WHERE id = $1 RETURNING messages, events, refused",
        erasure_id,
    )
    return Erased(*found)


# -- messages

# Rows of which the order knew.
_KNOWN = f"seq & {(1 << SLOT_BITS) - 1} <= ($1::bigint[])[(seq >> {SLOT_BITS}) + 1]"


async def sent(db: Any, erasure: Erasure) -> list[int]:
    """Return the seqs of some messages from the person, or of the one message."""
    column = "message_id" if erasure.person is None else "from_msisdn"
    found = await db.fetch(
        f"SELECT seq FROM messages WHERE {column} = $2::text AND {_KNOWN} LIMIT {PIECE_ROWS}",
        erasure.heads,
        erasure.person or erasure.message_id,
    )
    return [seq for (seq,) in found]


async def received(db: Any, erasure: Erasure, after: int) -> tuple[list[int], int | None]:
    """Look at some rows after a seq; return those to the person, and where to go on (None: end).

    No index has recipients.
    """
    end, found = await db.fetchrow(
        "WITH piece AS MATERIALIZED (SELECT seq, to_msisdn FROM messages WHERE seq > $3::bigint"
        f" ORDER BY seq LIMIT {SCAN_ROWS}) SELECT max(seq),"
        f" array_agg(seq) FILTER (WHERE to_msisdn = $2::text AND {_KNOWN}) FROM piece",
        erasure.heads,
        erasure.person,
        after,
    )
    return found or [], end


async def was_recipient(db: Any, person: str | None) -> bool:
    """Tell whether any message may be to the person."""
    return bool(
        await db.fetchval(
            "SELECT EXISTS (SELECT FROM recipient_counts WHERE to_msisdn = $1::text)"
            " OR EXISTS (SELECT FROM deltas WHERE $1::text = ANY(recipients))",
            person,
        )
    )


async def take(
    db: Any, erasure: Erasure, seqs: Sequence[int], tombstone_days: float, pads: Pads
) -> None:
    """Delete messages with their events, and write down their ids for whoever follows."""
    async with db.transaction():
        until = await db.fetchval(
            "SELECT (extract(epoch FROM now()) + $1::float8 * 86400)::bigint", tombstone_days
        )
        ids = await tombstones.bury(db, seqs, until, pads)
        await db.execute("INSERT INTO erased (message_id) SELECT unnest($1::text[])", ids)
        events = await db.fetch(
            "DELETE FROM events WHERE message_id = ANY($1::text[]) RETURNING 1", ids
        )
        await _add(db, erasure, Erased(messages=len(ids), events=len(events)))


async def _add(db: Any, erasure: Erasure, more: Erased) -> None:
    await db.execute(
        "UPDATE erasures SET messages = messages + $2, events = events + $3,"
        " refused = refused + $4 WHERE id = $1",
        erasure.id,
        *more,
    )


# -- events and refused bodies


async def mentioning(
    db: Any, table: str, after: int, person: str | None, message_id: str | None = None
) -> tuple[list[int], int | None]:
    """Look at some bodies after a key; return the keys of those that mention, and where to go on.

    None for the latter at the end.
    """
    name = person or message_id or ""
    kind = "bytea" if table == "refused" else "text"
    found = await db.fetch(
        f"WITH piece AS MATERIALIZED (SELECT {BODIES[table]} AS key, message_id, body FROM {table}"
        f" WHERE {BODIES[table]} > $1::bigint ORDER BY 1 LIMIT {SCAN_BODIES})"
        " SELECT key, coalesce(message_id = $2::text, false), body FROM piece"
        f" WHERE message_id = $2::text OR position($3::{kind} in body) > 0"
        " UNION ALL SELECT max(key), false, NULL FROM piece",
        after,
        message_id,
        bare(name).encode() if kind == "bytea" else bare(name),
    )
    pattern = mentions(name)
    *bodies, (end, _, _) = found
    return [
        key
        for key, own, body in bodies
        if own or pattern.search(body if isinstance(body, bytes) else body.encode())
    ], end


async def take_bodies(db: Any, erasure: Erasure, table: str, keys: Sequence[int]) -> None:
    async with db.transaction():
        gone = await db.fetch(
            f"DELETE FROM {table} WHERE {BODIES[table]} = ANY($1::bigint[]) RETURNING 1", keys
        )
        await _add(db, erasure, Erased(**{table: len(gone)}))


async def count(db: Any, person: str) -> Erased:
    """Return how much an erasure of this person would take; it looks at everything."""
    messages = await db.fetchval(
        "SELECT count(*) FROM messages WHERE from_msisdn = $1 OR to_msisdn = $1", person
    )
    found = dict.fromkeys(BODIES, 0)
    for table in BODIES:
        after: int | None = 0
        while after is not None:
            keys, after = await mentioning(db, table, after, person)
            found[table] += len(keys)
    return Erased(int(messages), **found)


# -- no trace


async def cross_out(db: Any, erasures: Sequence[Erasure]) -> None:
    """Forget whom it was about, the ids that went, and what was done long ago."""
    async with db.transaction():
        await db.execute(
            "UPDATE erasures SET person = NULL, message_id = NULL WHERE id = ANY($1::bigint[])",
            [each.id for each in erasures],
        )
        await db.execute("DELETE FROM erased")
        await db.execute(
            "DELETE FROM erasures WHERE done_at < now() - make_interval(hours => $1)", DONE_HOURS
        )


async def folded(db: Any) -> bool:
    """Fold the deltas, which have numbers; tell whether none that takes is left."""
    while await upkeep.fold(db):
        pass
    return not await db.fetchval("SELECT EXISTS (SELECT FROM deltas WHERE n < 0)")


async def settled(db: Any) -> bool:
    """Tell whether VACUUM can take away what was deleted: no older snapshot sees it any more."""
    await vacuum(db, "erasures")
    dead = await db.fetchval(
        "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'erasures'::regclass"
    )
    return not dead


async def vacuum(db: Any, table: str) -> None:
    """Take the dead rows out of a table and its indexes; unhurried, and beside all else."""
    await db.execute("SET vacuum_cost_delay = 2; SET vacuum_cost_limit = 2000")
    # Not the end of the file: cutting it off locks readers and deliveries out.
    await db.execute(f"VACUUM (INDEX_CLEANUP ON, TRUNCATE OFF) {table}")


async def analyze(db: Any, table: str) -> None:
    """Take new samples, in place of those that may have the person's number."""
    await db.execute(f"ANALYZE {table}")


async def finish(db: Any, erasures: Sequence[Erasure]) -> None:
    await db.execute(
        "UPDATE erasures SET done_at = now() WHERE id = ANY($1::bigint[])",
        [each.id for each in erasures],
    )
