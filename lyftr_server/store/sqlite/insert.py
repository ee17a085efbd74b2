"""A batch of messages in one INSERT, and what became of each: decided by the database alone."""

import sqlite3
import time
from collections.abc import Sequence
from functools import cache

from ...records import Delivery, Message, Refusal, Result

_COLUMNS = "message_id, from_msisdn, to_msisdn, ts, text, created_at"

# RAISE(IGNORE) leaves out the row and goes on with the statement's next. A trigger of this
# connection alone: which repeats count is the program's setting, not the file's.
CONTENT_DEDUPE = """
CREATE TEMP TRIGGER content_dedupe BEFORE INSERT ON main.messages
WHEN EXISTS (SELECT 1 FROM main.messages AS stored
             WHERE stored.instant = new.instant AND stored.ts = new.ts AND stored.text IS new.text)
BEGIN
    SELECT RAISE(IGNORE);
END
"""


def insert(
    db: sqlite3.Connection, batch: Sequence[Delivery | Refusal], last_seq: int
) -> tuple[Sequence[Result], int, int]:
    """Commit a batch; return what became of each, how many messages are new, and the last seq.

    One statement, which is one transaction. Every step of a statement gives up the GIL and may
    wait 5 ms to get it back from a busy loop: 64 statements take 2 to 6 ms longer than one with 64
    rows. `last_seq` is the last before this batch.
    """
    now = time.time_ns() // 1000
    messages = [
        message for item in batch if isinstance(item, Delivery) for message in item.messages
    ]
    values = [value for message in messages for value in (*message, now)]
    cursor = db.execute(_sql(len(messages)), values)
    created = cursor.rowcount
    if created == len(messages):
        return [Result.CREATED] * created, created, cursor.lastrowid or 0
    results = _look_at_repeats(db, messages, last_seq)
    return results, created, (cursor.lastrowid or 0) if created else last_seq


@cache
def _sql(rows: int) -> str:
    places = ",".join(["(?,?,?,?,?,?)"] * rows)
    # Not INSERT OR IGNORE: it would swallow a broken NOT NULL too.
    return f"INSERT INTO messages ({_COLUMNS}) VALUES {places} ON CONFLICT (message_id) DO NOTHING"


def _look_at_repeats(
    db: sqlite3.Connection, messages: list[Message], last_seq: int
) -> Sequence[Result]:
    """Tell the new messages of a committed batch from the repeats, and those from conflicts."""
    found = db.execute("SELECT message_id FROM messages WHERE seq > ?", (last_seq,))
    new = {message_id for (message_id,) in found}
    results = []
    for message in messages:
        if message.message_id in new:
            new.remove(message.message_id)  # a second one in the batch is a repeat
            results.append(Result.CREATED)
            continue
        stored = db.execute(
            "SELECT message_id, from_msisdn, to_msisdn, ts, text FROM messages"
            " WHERE message_id = ?",
            (message.message_id,),
        ).fetchone()
        # None: another id with the same content, under DEDUPE_BY=content.
        conflict = stored is not None and stored != tuple(message)
        results.append(Result.CONFLICT if conflict else Result.DUPLICATE)
    return results
