"""A batch in one transaction, and what became of each delivery: decided by the database alone."""

import json
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from ...records import NATIVE, Delivery, Message, Refusal, Result
from ..limits import Limits
from ..repeats import conflict, same
from . import events, refused
from .sql import json_row, transaction
from .tombstones import Tombstones

_COLUMNS = "message_id, from_msisdn, to_msisdn, ts, text, created_at"
# Rows in one statement.
_MOST_ROWS = 256

# RAISE(IGNORE) leaves out the row and goes on with the statement's next. A trigger of this
# connection alone: which repeats count is the program's setting, not the file's.
CONTENT_DEDUPE = """
CREATE TEMP TRIGGER content_dedupe BEFORE INSERT ON main.messages
WHEN EXISTS (SELECT 1 FROM main.messages AS stored
             WHERE stored.ts = new.ts AND length(stored.text) IS length(new.text)
             AND substr(stored.text, 1, 40) IS substr(new.text, 1, 40)
             AND substr(stored.text, -40) IS substr(new.text, -40)
             AND stored.text IS new.text)
BEGIN
    SELECT RAISE(IGNORE);
END
"""
# Many messages may have the same time: without this each would be compared with all of them. Both
# ends of a text tell most apart, and take less room than all of it.
_CONTENT_INDEX = """
CREATE INDEX IF NOT EXISTS main.messages_by_content
ON messages (ts, length(text), substr(text, 1, 40), substr(text, -40))
"""


def dedupe_by_content(db: sqlite3.Connection, wanted: bool) -> None:
    """Let this connection leave out messages whose content is stored, or do no more for that."""
    if wanted:
        db.execute(_CONTENT_INDEX)
        db.execute(CONTENT_DEDUPE)
    else:
        db.execute("DROP INDEX IF EXISTS main.messages_by_content")


class Inserted(NamedTuple):
    """What a commit did: each item's result, and how many messages are new."""

    results: Sequence[Result]
    created: int


class _Outcomes(NamedTuple):
    """What became of the messages of each delivery."""

    results: list[list[Result]]
    seqs: dict[str, int]  # of the new ones
    conflicts: list[Refusal]


def insert(
    db: sqlite3.Connection,
    batch: Sequence[Delivery | Refusal],
    limits: Limits,
    tombstones: Tombstones,
    now_us: int | None = None,
) -> Inserted:
    """Commit a batch, all of it or nothing. `now_us`: the time, in microseconds since 1970.

    A message that is buried is left out, and is a duplicate.
    """
    now_us = time.time_ns() // 1000 if now_us is None else now_us
    deliveries = [item for item in batch if isinstance(item, Delivery)]
    ids = (message.message_id for item in deliveries for message in item.messages)
    buried = tombstones.buried(db, ids, now_us / 1e6)
    if buried:
        deliveries = [_without(delivery, buried) for delivery in deliveries]
    elif len(deliveries) == len(batch) and all(item.source == NATIVE for item in deliveries):
        return _insert_native(db, deliveries, limits, now_us)
    with transaction(db):
        messages = [message for delivery in deliveries for message in delivery.messages]
        created = _insert_messages(db, messages, now_us)
        outcomes = _outcomes(db, deliveries, created)
        _insert_payloads(db, deliveries, outcomes.seqs)
        new_events = events.insert(db, deliveries, now_us)
        refusals = [item for item in batch if isinstance(item, Refusal)]
        refused.keep(db, [*refusals, *outcomes.conflicts], limits, now_us)
    results = iter(outcomes.results)
    news = iter(new_events)
    found = [
        _overall(next(results), next(news)) if isinstance(item, Delivery) else Result.REFUSED
        for item in batch
    ]
    return Inserted(found, created)


def _without(delivery: Delivery, buried: Collection[str]) -> Delivery:
    kept = [n for n, each in enumerate(delivery.messages) if each.message_id not in buried]
    return delivery._replace(
        messages=tuple(delivery.messages[n] for n in kept),
        payloads=tuple(delivery.payloads[n] for n in kept if delivery.payloads),
    )


def _insert_native(
    db: sqlite3.Connection,
    deliveries: Sequence[Delivery],
    limits: Limits,
    now_us: int,
) -> Inserted:
    """Commit messages of our own format, one a delivery, in one statement: one transaction.

    Every step of a statement gives up the GIL and may wait 5 ms to get it back from a busy loop:
    64 statements take 2 to 6 ms longer than one with 64 rows.
    """
    messages = [delivery.messages[0] for delivery in deliveries]
    created = _insert_messages(db, messages, now_us)
    if created == len(messages):
        return Inserted([Result.CREATED] * created, created)
    outcomes = _outcomes(db, deliveries, created)
    if outcomes.conflicts:
        with transaction(db):  # before anybody hears of it
            refused.keep(db, outcomes.conflicts, limits, now_us)
    return Inserted([result for (result,) in outcomes.results], created)


def _insert_messages(db: sqlite3.Connection, messages: Sequence[Message], now_us: int) -> int:
    """Insert those whose id is new; return how many."""
    created = 0
    for piece in pieces(messages):
        values = [value for message in piece for value in (*message, now_us)]
        # execute() would give up the GIL once more, to ask for the last seq.
        created += db.executemany(_sql(len(piece)), (values,)).rowcount
    return created


@cache
def _sql(rows: int) -> str:
    places = ",".join(["(?,?,?,?,?,?)"] * rows)
    # Not INSERT OR IGNORE: it would swallow a broken NOT NULL too.
    return f"INSERT INTO messages ({_COLUMNS}) VALUES {places} ON CONFLICT (message_id) DO NOTHING"


def pieces(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield the rows in parts that one statement takes."""
    for start in range(0, len(rows), _MOST_ROWS):
        yield rows[start : start + _MOST_ROWS]


def _outcomes(db: sqlite3.Connection, deliveries: Sequence[Delivery], created: int) -> _Outcomes:
    """Tell the `created` messages from repeats, and those from conflicts."""
    stored = _stored(db, {each.message_id for one in deliveries for each in one.messages})
    # Nothing was stored after them.
    new = set(sorted((seq for seq, _ in stored.values()), reverse=True)[:created])
    outcomes = _Outcomes([], {}, [])
    for delivery in deliveries:
        results: list[Result] = []
        for message in delivery.messages:
            # None: another id with the same content, under DEDUPE_BY=content.
            seq, row = stored.get(message.message_id, (0, None))
            if row is None:
                result = Result.DUPLICATE
            elif not same(message, row, ours=bool(delivery.payloads)):
                if Result.CONFLICT not in results:  # its body is kept once
                    outcomes.conflicts.append(conflict(delivery, message))
                result = Result.CONFLICT
            elif seq in new and message.message_id not in outcomes.seqs:
                result = Result.CREATED
                outcomes.seqs[message.message_id] = seq
            else:
                result = Result.DUPLICATE
            results.append(result)
        outcomes.results.append(results)
    return outcomes


def _stored(db: sqlite3.Connection, ids: set[str]) -> dict[str, tuple[int, Message | None]]:
    rows = json_row(
        db,
        "SELECT json_group_array(json_array(seq, message_id, from_msisdn, to_msisdn, ts, text))"
        " FROM json_each(?) CROSS JOIN messages ON message_id = value",
        (json.dumps(list(ids), ensure_ascii=False),),
    )
    return {row[0]: (seq, Message(*row)) for seq, *row in rows}


def _insert_payloads(
    db: sqlite3.Connection, deliveries: Sequence[Delivery], seqs: dict[str, int]
) -> None:
    """Keep the source and the JSON of each new message that did not come in our own format."""
    rows = []
    left = dict(seqs)
    for delivery in deliveries:
        bodies = delivery.payloads or (None,) * len(delivery.messages)
        for message, body in zip(delivery.messages, bodies, strict=True):
            seq = left.pop(message.message_id, None)  # once: the first of two in a batch
            if seq is not None and delivery.source != NATIVE:
                rows.append((seq, delivery.source, body))
    for piece in pieces(rows):
        places = ",".join(["(?,?,?)"] * len(piece))
        db.execute(
            f"INSERT INTO payloads (seq, source, body) VALUES {places}",
            [value for row in piece for value in row],
        )


def _overall(results: Sequence[Result], new_event: bool) -> Result:
    """Return what became of a delivery as a whole."""
    if Result.CONFLICT in results:
        return Result.CONFLICT
    return Result.CREATED if new_event or Result.CREATED in results else Result.DUPLICATE
