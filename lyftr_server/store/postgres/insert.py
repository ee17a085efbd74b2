"""A batch in one transaction, and what became of each delivery: decided by the database alone.

What is most common, messages of our own format that are new, takes one statement and one round
trip. Rows are sorted by message_id and distinct, so that no two servers ever lock in opposite
orders. Every commit writes, a repeat's too: a transaction that writes nothing does not wait for a
standby, and would acknowledge a row that no standby has.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from ...records import NATIVE, Delivery, Message, Refusal, Result
from ..cursor import instant
from ..limits import Limits
from ..repeats import conflict, same
from .calls import again
from .schema import SLOT_BITS, folded
from .tombstones import Seen

# An id that is buried is left out; it is looked for unless this server's filter rules it out. Where
# others were buried meanwhile (`buried` has another version than in this statement's snapshot),
# let_in() looks again, and all is tried again.
# The time of storing, in microseconds; $3 takes its place in tests.
_NOW = "coalesce($3::bigint, (extract(epoch FROM statement_timestamp()) * 1000000)::bigint)"
INSERT = f"""
WITH given AS (
    SELECT * FROM unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::text[], $11::text[], $12::text[], $13::bigint[], $17::boolean[]) AS given
        (message_id, from_msisdn, to_msisdn, ts, text, instant, folded, source, payload, n, suspect)
), now AS MATERIALIZED (SELECT {_NOW} AS us
), own AS (
    UPDATE slots SET last = $2::bigint + cardinality($4::text[]) WHERE slot = $1::integer
), new AS (
    INSERT INTO messages (seq, message_id, from_msisdn, to_msisdn, ts, text, instant, folded,
                          source, payload, created_at)
    SELECT ($1::bigint << {SLOT_BITS}) + $2::bigint + n, message_id, from_msisdn, to_msisdn, ts,
        text, instant, folded, source, payload, us
    FROM given CROSS JOIN now
    WHERE NOT suspect AND (SELECT version FROM buried) = $16::bigint
    OR coalesce((SELECT until FROM tombstones
        WHERE hash = tombstone(message_id, $14::bytea, $15::bytea)), 0) <= us / 1000000
    ORDER BY message_id COLLATE "C"
    ON CONFLICT (message_id) DO NOTHING
    RETURNING message_id, from_msisdn, to_msisdn, instant, created_at
), counted AS (
    INSERT INTO deltas (n, hours, senders, recipients, minutes)
    SELECT 1, array_agg(substr(instant, 1, 13)), array_agg(from_msisdn), array_agg(to_msisdn),
        array_agg(created_at / 60000000) FROM new HAVING count(*) > 0
)
SELECT coalesce(ids, ARRAY[]::text[]) FROM (SELECT array_agg(message_id) AS ids FROM new) AS every
WHERE let_in((SELECT version FROM buried), ids, $14::bytea, $15::bytea)
"""


class Slot(NamedTuple):
    """Which numbers a connection gives: (number << SLOT_BITS) + n, n above `last`."""

    number: int
    last: int


class Options(NamedTuple):
    """What a server was told about storing."""

    by_content: bool = False
    refused_limits: Limits = Limits()
    seen: Seen = Seen()  # of the tombstones: nothing
    now_us: int | None = None  # None: the database's clock


class _Row(NamedTuple):
    message: Message
    source: str | None
    payload: str | None


async def insert(
    db: Any, batch: Sequence[Delivery | Refusal], slot: Slot, options: Options
) -> tuple[list[Result], int]:
    """Commit a batch, all of it or nothing; return what became of each, and the slot's new last."""
    simple = not options.by_content and all(
        isinstance(item, Delivery) and not item.events for item in batch
    )
    if simple:
        rows = _distinct(_rows(batch))
        new = await _insert_messages(db, rows, slot, options)
        if len(new) == sum(len(item.messages) for item in batch if isinstance(item, Delivery)):
            return [Result.CREATED] * len(batch), slot.last + len(rows)
        # A new statement sees what the others committed meanwhile.
        outcomes = await _outcomes(db, batch, new)
        if outcomes.conflicts:
            # Before anybody hears of it; by itself, what was committed is not done again.
            await again(lambda: _refuse_alone(db, outcomes.conflicts, options))
    else:
        async with db.transaction():
            rows = _rows(batch)
            if options.by_content:
                rows = await _new_content(db, rows)
            rows = _distinct(rows)
            new = await _insert_messages(db, rows, slot, options)
            outcomes = await _outcomes(db, batch, new)
            events = await _insert_events(db, batch, options)
            refusals = [item for item in batch if isinstance(item, Refusal)]
            await _refuse(db, [*refusals, *outcomes.conflicts], options)
        outcomes = outcomes._replace(events=events)
    results = [_overall(item, outcomes) for item in batch]
    return results, slot.last + len(rows)


class _Outcomes(NamedTuple):
    results: dict[int, list[Result]]  # of each delivery, by its identity
    conflicts: list[Refusal]
    events: set[int]  # deliveries that brought new events


def _overall(item: Delivery | Refusal, outcomes: _Outcomes) -> Result:
    if isinstance(item, Refusal):
        return Result.REFUSED
    results = outcomes.results[id(item)]
    if Result.CONFLICT in results:
        return Result.CONFLICT
    new = id(item) in outcomes.events or Result.CREATED in results
    return Result.CREATED if new else Result.DUPLICATE


def _rows(batch: Sequence[Delivery | Refusal]) -> list[_Row]:
    """Return the batch's messages, in the order in which they came."""
    rows: list[_Row] = []
    for item in batch:
        if isinstance(item, Refusal):
            continue
        source = None if item.source == NATIVE else item.source
        payloads: Sequence[str | None] = item.payloads or (None,) * len(item.messages)
        rows += [
            _Row(message, source, payload)
            for message, payload in zip(item.messages, payloads, strict=True)
        ]
    return rows


def _distinct(rows: Sequence[_Row]) -> list[_Row]:
    """Return the first row of each message_id, in the order in which they came."""
    first: dict[str, _Row] = {}
    for row in rows:
        first.setdefault(row.message.message_id, row)
    return list(first.values())


async def _new_content(db: Any, rows: Sequence[_Row]) -> list[_Row]:
    """Return the rows whose id is not stored, nor their `ts` and text under another.

    One server at a time: two may bring the same content under other ids. What the lock let in
    before is seen by the next statement.
    """
    await db.execute("SELECT FROM locks WHERE name = 'content' FOR UPDATE")
    ids = [row.message.message_id for row in rows]
    found = await db.fetch("SELECT message_id FROM messages WHERE message_id = ANY($1)", ids)
    known_ids = {message_id for (message_id,) in found}
    instants = [instant(row.message.ts) for row in rows]
    found = await db.fetch("SELECT ts, text FROM messages WHERE instant = ANY($1)", instants)
    known = {(ts, text) for ts, text in found}
    new = []
    for row in rows:
        content = (row.message.ts, row.message.text)
        if content not in known and row.message.message_id not in known_ids:
            known.add(content)
            known_ids.add(row.message.message_id)
            new.append(row)
    return new


async def _insert_messages(db: Any, rows: Sequence[_Row], slot: Slot, options: Options) -> set[str]:
    """Insert those that are new; return their ids."""
    columns: list[list[str | None]] = [
        [*column] for column in zip(*(row.message for row in rows), strict=True)
    ] or [[]] * 5
    found = await db.fetchval(
        INSERT,
        slot.number,
        slot.last,
        options.now_us,
        *columns,
        [instant(row.message.ts) for row in rows],
        [folded(row.message.text) for row in rows],
        [row.source for row in rows],
        [row.payload for row in rows],
        list(range(1, len(rows) + 1)),
        *options.seen.pads,
        options.seen.version,
        options.seen.suspects(row.message.message_id for row in rows),
    )
    return set(found)


async def _outcomes(db: Any, batch: Sequence[Delivery | Refusal], new: set[str]) -> _Outcomes:
    """Tell the new messages from repeats, and those from conflicts."""
    deliveries = [item for item in batch if isinstance(item, Delivery)]
    ids = sorted({each.message_id for one in deliveries for each in one.messages})
    found = await db.fetch(
        "SELECT message_id, from_msisdn, to_msisdn, ts, text FROM messages"
        " WHERE message_id = ANY($1::text[])",
        ids,
    )
    stored = {row[0]: Message(*row) for row in found}
    left = set(new)
    outcomes = _Outcomes({}, [], set())
    for delivery in deliveries:
        results: list[Result] = []
        for message in delivery.messages:
            # None: another id with the same content, under DEDUPE_BY=content.
            row = stored.get(message.message_id)
            if row is not None and not same(message, row, ours=bool(delivery.payloads)):
                if Result.CONFLICT not in results:  # its body is kept once
                    outcomes.conflicts.append(conflict(delivery, message))
                result = Result.CONFLICT
            elif message.message_id in left:
                left.remove(message.message_id)  # a second one in the batch is a repeat
                result = Result.CREATED
            else:
                result = Result.DUPLICATE
            results.append(result)
        outcomes.results[id(delivery)] = results
    return outcomes


async def _insert_events(
    db: Any, batch: Sequence[Delivery | Refusal], options: Options
) -> set[int]:
    """Insert the events that are new; return the identities of the deliveries that have some."""
    deliveries = [item for item in batch if isinstance(item, Delivery) and item.events]
    rows = {
        _hash(delivery.source, event.body): (delivery.source, *event)
        for delivery in deliveries
        for event in delivery.events
    }
    if not rows:
        return set()
    numbers = {hash_: n for n, hash_ in enumerate(rows, 1)}
    hashes = sorted(rows)
    columns = [[*column] for column in zip(*(rows[each] for each in hashes), strict=True)]
    found = await db.fetch(
        # Numbered as they came; inserted by hash, so that no two servers lock in opposite orders.
        "WITH numbers AS MATERIALIZED (SELECT nextval('events_seq_seq') AS seq, n"
        " FROM generate_series(1, cardinality($2::bytea[])) AS n)"
        " INSERT INTO events (seq, hash, source, kind, message_id, body, created_at)"
        " OVERRIDING SYSTEM VALUE"
        " SELECT seq, hash, source, kind, message_id, body, coalesce($1::bigint,"
        " (extract(epoch FROM statement_timestamp()) * 1000000)::bigint)"
        " FROM unnest($2::bytea[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::text[])"
        " AS given (hash, n, source, kind, message_id, body) JOIN numbers USING (n)"
        " ORDER BY hash ON CONFLICT (hash) DO NOTHING RETURNING hash",
        options.now_us,
        hashes,
        [numbers[each] for each in hashes],
        *columns,
    )
    new = {hash_ for (hash_,) in found}
    return {
        id(one)
        for one in deliveries
        if any(_hash(one.source, event.body) in new for event in one.events)
    }


def _hash(source: str, body: str) -> bytes:
    return sha256(f"{source}\0{body}".encode()).digest()


async def _refuse_alone(db: Any, refusals: Sequence[Refusal], options: Options) -> None:
    async with db.transaction():
        await _refuse(db, refusals, options)


async def _refuse(db: Any, refusals: Sequence[Refusal], options: Options) -> None:
    """Keep refused bodies, and let the oldest go; inside the caller's transaction."""
    if not refusals or not options.refused_limits.bodies:
        return
    await db.execute("SELECT FROM locks WHERE name = 'refused' FOR UPDATE")
    columns = [[*column] for column in zip(*refusals, strict=True)]
    await db.execute(
        "INSERT INTO refused"
        " (created_at, source, result, request_id, message_id, detail, body)"
        " SELECT coalesce($1::bigint, (extract(epoch FROM statement_timestamp()) * 1000000)"
        "::bigint),"
        " given.* FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[],"
        " $7::bytea[]) AS given",
        options.now_us,
        *columns,
    )
    await db.execute(
        "DELETE FROM refused WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER newest AS n,"
        " sum(octet_length(body)) OVER newest AS size FROM refused WINDOW newest AS"
        " (ORDER BY id DESC)) AS kept WHERE n > $1 OR size > $2)",
        *options.refused_limits,
    )
