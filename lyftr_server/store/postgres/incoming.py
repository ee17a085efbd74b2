"""A database of another engine is taken in: into slot 0, under its own numbers and keys.

What is there says how far it went, so it goes on where it was broken off. Places in the order of
storing and cursors that were given before stay good.
"""

from collections.abc import Sequence
from typing import Any

from ..cursor import instant
from ..errors import Unusable
from ..moving import Row, Table, Whole
from . import schema, upkeep
from .connection import keep_servers_off
from .schema import folded

_SEQUENCES = {"events": "seq", "refused": "id"}


async def begin(db: Any, source: Whole) -> None:
    """Make the database ready; Unusable if it has anything of its own, or servers."""
    await schema.migrate(db)
    await keep_servers_off(db)
    async with db.transaction():
        if await _has_rows(db):
            key = await db.fetchval("SELECT key FROM keys WHERE name = 'cursor'")
            last = await db.fetchval("SELECT max(last) FROM slots WHERE slot = 0")
            others = await db.fetchval("SELECT EXISTS (SELECT FROM slots WHERE slot > 0)")
            if key != source.keys["cursor"] or others or last > source.last.get("messages", 0):
                raise Unusable("the database has messages of its own: give it an empty one")
            return
        await db.execute("DELETE FROM slots")
        await db.execute("INSERT INTO slots VALUES (0, 0)")
        await db.executemany("UPDATE keys SET key = $2 WHERE name = $1", [*source.keys.items()])


async def _has_rows(db: Any) -> bool:
    return bool(
        await db.fetchval(
            "SELECT EXISTS (SELECT FROM messages) OR EXISTS (SELECT FROM events)"
            " OR EXISTS (SELECT FROM refused) OR EXISTS (SELECT FROM tombstones)"
        )
    )


async def last(db: Any, table: Table) -> int | bytes:
    """Return the key of the last row that is there."""
    found = await db.fetchval(
        f"SELECT {table.key} FROM {table.name} ORDER BY {table.key} DESC LIMIT 1"
    )
    return table.first if found is None else found


async def count(db: Any, table: Table) -> int:
    return int(await db.fetchval(f"SELECT count(*) FROM {table.name}"))


async def take(db: Any, table: Table, rows: Sequence[Row]) -> None:
    """Take rows in, in one transaction."""
    columns, records = [*table.columns], [*rows]
    async with db.transaction():
        if table.name == "messages":
            columns += ["instant", "folded"]
            records = [(*row, instant(row[4]), folded(row[5])) for row in rows]
            await _count(db, records)
        elif table.name == "tombstones":
            await db.execute("UPDATE buried SET version = greatest(version, 1)")
        await db.copy_records_to_table(table.name, records=records, columns=columns)


async def _count(db: Any, records: Sequence[Row]) -> None:
    """Append the messages to the counts, and say how far slot 0 goes."""
    _, _, senders, recipients, _, _, _, _, created, instants, _ = zip(*records, strict=True)
    await db.execute(
        "INSERT INTO deltas (n, hours, senders, recipients, minutes) VALUES (1, $1, $2, $3, $4)",
        [each[:13] for each in instants],
        senders,
        recipients,
        [each // 60_000_000 for each in created],
    )
    await db.execute("UPDATE slots SET last = $1 WHERE slot = 0", records[-1][0])


async def rows(db: Any, table: Table, after: int | bytes, limit: int) -> list[Row]:
    """Return the next rows of a table, to be compared."""
    kind = "bytea" if isinstance(after, bytes) else "bigint"
    return [
        tuple(row)
        for row in await db.fetch(
            f"SELECT {', '.join(table.columns)} FROM {table.name} WHERE {table.key} > $1::{kind}"
            f" ORDER BY {table.key} LIMIT $2",
            after,
            limit,
        )
    ]


async def number(db: Any, source: Whole) -> None:
    """Let numbers go on behind the last that was given, be its row there or not."""
    await db.execute(
        "UPDATE slots SET last = greatest(last, $1) WHERE slot = 0", source.last.get("messages", 0)
    )
    for table, key in _SEQUENCES.items():
        if given := source.last.get(table):
            await db.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', '{key}'), $1)", given
            )


async def tidy(db: Any) -> bool:
    """Do a piece of what servers do in idle moments; tell whether more is to do."""
    return await upkeep.fold(db) or await upkeep.index(db)


async def settle(db: Any) -> None:
    """Let the planner know what there is."""
    for table in ("messages", "search", "events"):
        await db.execute(f"ANALYZE {table}")
