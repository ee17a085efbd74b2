"""The counts behind totals, statistics and deep offsets, and how they follow the messages.

They know the messages up to `counted`. Those above, at most FOLD_ROWS, are in the views `hours`,
`days`, `senders` and `sender_days`, which add them one by one: what these sum up is exact at every
moment. To count each message as it comes would dirty five pages for it, and write half as much
again. So `counted` is raised once for many of them, by a message or in an idle moment, and a
trigger lets the counts follow.
"""

import sqlite3
from collections.abc import Callable

from .sql import statements, transaction

# So many are counted at once, in some 5 ms. Of more each message costs less; until then each read
# counts those that wait, which takes less than 1 ms.
FOLD_ROWS = 512

# The schema's step 2: counts by trigger, in the same transaction. A trigger does not fire for a
# repeat, and holds the counts even when a person deletes rows with the sqlite3 shell.
#
# `rank_floor` is n when n last doubled, so rank_floor <= n < 2 * rank_floor: the ten busiest
# senders are found through an index that changes log(n) times a sender, not with every message.
#
# Counts by day are kept for senders of BUSY messages and more. Those of the others are counted one
# by one in no time, and without them each message dirties a page less: at a million messages an
# insert takes three quarters of the time.
BUSY = 2000

COUNTS = """
CREATE TABLE hour_counts (hour TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE day_counts (day TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE sender_counts (
    from_msisdn TEXT PRIMARY KEY, n INTEGER NOT NULL, rank_floor INTEGER NOT NULL,
    by_day INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX sender_counts_by_rank ON sender_counts (rank_floor);
-- of the senders with by_day
CREATE TABLE sender_day_counts (
    from_msisdn TEXT NOT NULL, day TEXT NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (from_msisdn, day)
) STRICT, WITHOUT ROWID;
CREATE TABLE recipient_counts (
    to_msisdn TEXT PRIMARY KEY, n INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- how many rows sender_counts and recipient_counts have: count(*) walks them all
CREATE TABLE distinct_counts (what TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID;
-- by created_at; first_seq and last_seq bound the seq of every row of that minute
CREATE TABLE stored_minute_counts (
    minute INTEGER PRIMARY KEY, n INTEGER NOT NULL,
    first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL
) STRICT;
"""

# Fills the counts from the rows. rank_floor may be any number that keeps its promise.
RECOUNT = f"""
DELETE FROM distinct_counts;
DELETE FROM hour_counts;
DELETE FROM day_counts;
DELETE FROM sender_counts;
DELETE FROM sender_day_counts;
DELETE FROM recipient_counts;
DELETE FROM stored_minute_counts;
INSERT INTO hour_counts
    SELECT substr(instant, 1, 13), count(*) FROM messages GROUP BY 1;
INSERT INTO day_counts
    SELECT substr(hour, 1, 10), sum(n) FROM hour_counts GROUP BY 1;
INSERT INTO sender_counts
    SELECT from_msisdn, count(*), count(*), count(*) >= {BUSY} FROM messages GROUP BY 1;
INSERT INTO sender_day_counts
    SELECT from_msisdn, substr(instant, 1, 10), count(*) FROM messages
    WHERE from_msisdn IN (SELECT from_msisdn FROM sender_counts WHERE by_day) GROUP BY 1, 2;
INSERT INTO recipient_counts
    SELECT to_msisdn, count(*) FROM messages GROUP BY 1;
INSERT INTO stored_minute_counts
    SELECT created_at / 60000000, count(*), min(seq), max(seq) FROM messages GROUP BY 1;
INSERT INTO distinct_counts VALUES
    ('senders', (SELECT count(*) FROM sender_counts)),
    ('recipients', (SELECT count(*) FROM recipient_counts));
"""

_COUNT_OFF = """\
    UPDATE hour_counts SET n = n - 1 WHERE hour = substr(old.instant, 1, 13);
    DELETE FROM hour_counts WHERE hour = substr(old.instant, 1, 13) AND n = 0;
    UPDATE day_counts SET n = n - 1 WHERE day = substr(old.instant, 1, 10);
    DELETE FROM day_counts WHERE day = substr(old.instant, 1, 10) AND n = 0;
    UPDATE sender_counts SET n = n - 1 WHERE from_msisdn = old.from_msisdn;
    DELETE FROM sender_counts WHERE from_msisdn = old.from_msisdn AND n = 0;
    UPDATE sender_day_counts SET n = n - 1
        WHERE from_msisdn = old.from_msisdn AND day = substr(old.instant, 1, 10);
    DELETE FROM sender_day_counts
        WHERE from_msisdn = old.from_msisdn AND day = substr(old.instant, 1, 10) AND n = 0;
    UPDATE recipient_counts SET n = n - 1 WHERE to_msisdn = old.to_msisdn;
    DELETE FROM recipient_counts WHERE to_msisdn = old.to_msisdn AND n = 0;
    UPDATE stored_minute_counts SET n = n - 1 WHERE minute = old.created_at / 60000000;
    DELETE FROM stored_minute_counts WHERE minute = old.created_at / 60000000 AND n = 0;
"""

COUNT_TRIGGERS = f"""
CREATE TRIGGER messages_count_insert AFTER INSERT ON messages BEGIN
    INSERT INTO hour_counts VALUES (substr(new.instant, 1, 13), 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
    INSERT INTO day_counts VALUES (substr(new.instant, 1, 10), 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
    -- before the sender's own count, which may begin the counts by day with this row in them
    INSERT INTO sender_day_counts SELECT from_msisdn, substr(new.instant, 1, 10), 1
        FROM sender_counts WHERE from_msisdn = new.from_msisdn AND by_day
        ON CONFLICT DO UPDATE SET n = n + 1;
    INSERT INTO sender_counts VALUES (new.from_msisdn, 1, 1, 0)
        ON CONFLICT DO UPDATE SET n = n + 1;
    INSERT INTO recipient_counts VALUES (new.to_msisdn, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
    INSERT INTO stored_minute_counts VALUES (new.created_at / 60000000, 1, new.seq, new.seq)
        ON CONFLICT DO UPDATE SET n = n + 1,
            first_seq = min(first_seq, new.seq), last_seq = max(last_seq, new.seq);
END;

-- An upsert that updates does not fire these.
CREATE TRIGGER sender_counts_insert AFTER INSERT ON sender_counts BEGIN
    UPDATE distinct_counts SET n = n + 1 WHERE what = 'senders';
END;
CREATE TRIGGER sender_counts_delete AFTER DELETE ON sender_counts BEGIN
    UPDATE distinct_counts SET n = n - 1 WHERE what = 'senders';
END;
CREATE TRIGGER recipient_counts_insert AFTER INSERT ON recipient_counts BEGIN
    UPDATE distinct_counts SET n = n + 1 WHERE what = 'recipients';
END;
CREATE TRIGGER recipient_counts_delete AFTER DELETE ON recipient_counts BEGIN
    UPDATE distinct_counts SET n = n - 1 WHERE what = 'recipients';
END;

CREATE TRIGGER sender_counts_raise AFTER UPDATE OF n ON sender_counts
WHEN new.n >= 2 * new.rank_floor OR new.n < new.rank_floor BEGIN
    UPDATE sender_counts SET rank_floor = new.n WHERE from_msisdn = new.from_msisdn;
END;

CREATE TRIGGER sender_counts_by_day AFTER UPDATE OF n ON sender_counts
WHEN new.n >= {BUSY} AND NOT new.by_day BEGIN
    INSERT INTO sender_day_counts
        SELECT new.from_msisdn, substr(instant, 1, 10), count(*) FROM messages
        WHERE from_msisdn = new.from_msisdn GROUP BY 2;
    UPDATE sender_counts SET by_day = 1 WHERE from_msisdn = new.from_msisdn;
END;

CREATE TRIGGER messages_count_delete AFTER DELETE ON messages BEGIN
{_COUNT_OFF}END;
"""

_BEGIN_DAYS = """\
    INSERT INTO sender_day_counts
        SELECT new.from_msisdn, substr(instant, 1, 10), count(*) FROM messages
        WHERE from_msisdn = new.from_msisdn AND seq <= (SELECT seq FROM counted) GROUP BY 2;
    UPDATE sender_counts SET by_day = 1 WHERE from_msisdn = new.from_msisdn;
"""

# Raises the counts by the messages that `counted` has passed.
_NEW = "FROM messages WHERE seq > old.seq AND seq <= new.seq"
_ADDED = "ON CONFLICT DO UPDATE SET n = n + excluded.n"
_FOLD = f"""\
    INSERT INTO hour_counts SELECT substr(instant, 1, 13), count(*) {_NEW} GROUP BY 1 {_ADDED};
    INSERT INTO day_counts SELECT substr(instant, 1, 10), count(*) {_NEW} GROUP BY 1 {_ADDED};
    -- before the senders' own counts, which may begin the counts by day with these messages in them
    INSERT INTO sender_day_counts SELECT from_msisdn, substr(instant, 1, 10), count(*) {_NEW}
        AND from_msisdn IN (SELECT from_msisdn FROM sender_counts WHERE by_day)
        GROUP BY 1, 2 {_ADDED};
    INSERT INTO sender_counts SELECT from_msisdn, count(*), count(*), 0 {_NEW} GROUP BY 1 {_ADDED};
    INSERT INTO recipient_counts SELECT to_msisdn, count(*) {_NEW} GROUP BY 1 {_ADDED};
    INSERT INTO stored_minute_counts
        SELECT created_at / 60000000, count(*), min(seq), max(seq) {_NEW} GROUP BY 1 {_ADDED},
        first_seq = min(first_seq, excluded.first_seq), last_seq = max(last_seq, excluded.last_seq);
"""

# The schema's step 6: the counts follow behind a watermark. Rows above it are not counted off.
#
# All of it happens within the statement that inserts a batch. With statements of their own every
# step would give up the GIL and wait to have it back, and a transaction of their own would be one
# more sync: together a quarter of the messages a second.
WATERMARK = f"""
CREATE TABLE counted (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL) STRICT;
INSERT INTO counted SELECT 1, coalesce(max(seq), 0) FROM messages;
CREATE VIEW uncounted AS
    SELECT * FROM messages NOT INDEXED WHERE seq > (SELECT seq FROM counted);
CREATE VIEW hours AS
    SELECT hour, n FROM hour_counts UNION ALL SELECT substr(instant, 1, 13), 1 FROM uncounted;
CREATE VIEW days AS
    SELECT day, n FROM day_counts UNION ALL SELECT substr(instant, 1, 10), 1 FROM uncounted;
CREATE VIEW senders AS
    SELECT from_msisdn, n FROM sender_counts UNION ALL SELECT from_msisdn, 1 FROM uncounted;
-- of the senders with by_day
CREATE VIEW sender_days AS
    SELECT from_msisdn, day, n FROM sender_day_counts
    UNION ALL SELECT from_msisdn, substr(instant, 1, 10), 1 FROM uncounted;

DROP TRIGGER messages_count_insert;
DROP TRIGGER messages_count_delete;
CREATE TRIGGER messages_count_delete AFTER DELETE ON messages
WHEN old.seq <= (SELECT seq FROM counted) BEGIN
{_COUNT_OFF}END;

DROP TRIGGER sender_counts_by_day;
CREATE TRIGGER sender_counts_by_day AFTER UPDATE OF n ON sender_counts
WHEN new.n >= {BUSY} AND NOT new.by_day BEGIN
{_BEGIN_DAYS}END;
CREATE TRIGGER sender_counts_by_day_at_once AFTER INSERT ON sender_counts
WHEN new.n >= {BUSY} AND NOT new.by_day BEGIN
{_BEGIN_DAYS}END;

CREATE TRIGGER counted_raise AFTER UPDATE OF seq ON counted WHEN new.seq > old.seq BEGIN
{_FOLD}END;
DROP TRIGGER messages_search_insert;
CREATE TRIGGER messages_in_order AFTER INSERT ON messages
WHEN NOT new.seq BETWEEN max((SELECT watermark FROM search_state), (SELECT seq FROM counted)) + 1
    AND (SELECT seq FROM counted) + {FOLD_ROWS - 1} BEGIN
    SELECT RAISE(ABORT, 'seq is the order of storing: leave it out')
        WHERE new.seq <= max((SELECT watermark FROM search_state), (SELECT seq FROM counted));
    UPDATE counted SET seq = new.seq;
END;
"""


def fold(db: sqlite3.Connection, most_rows: int = FOLD_ROWS) -> int:
    """Count the next messages that wait; return how many, 0: all are counted."""
    rows, upto = db.execute(
        "SELECT count(*), max(seq) FROM (SELECT seq FROM uncounted ORDER BY seq LIMIT ?)",
        (most_rows,),
    ).fetchone()
    if rows:
        db.execute("UPDATE counted SET seq = ?", (upto,))
    return int(rows)


def recount(db: sqlite3.Connection, progress: Callable[[str], None]) -> None:
    """Derive all counts anew."""
    with transaction(db):
        db.execute("UPDATE counted SET seq = (SELECT coalesce(max(seq), 0) FROM messages)")
        for statement in statements(RECOUNT):
            if statement.startswith("INSERT"):
                progress(f"filling {statement.split()[2]}")
            db.execute(statement)


def waiting(db: sqlite3.Connection) -> int:
    """Return how many messages wait to be counted."""
    (found,) = db.execute("SELECT count(*) FROM uncounted").fetchone()
    return int(found)
