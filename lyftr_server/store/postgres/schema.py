"""The database's schema, and the forward-only steps to it from each earlier version."""

import logging
from typing import Any

from ..errors import Unusable
from ..folding import folding_hash, folds_alike

logger = logging.getLogger(__name__)

# Any number of servers may start at once: IF NOT EXISTS alone fails when they do.
_MIGRATION_LOCK = 0x4C594654  # "LYFT"

# `seq` is the order of storing: the number of a connection that commits, its slot, and a number
# that counts the rows it wrote. One sequence for all would hide rows from those who follow it:
# its numbers are drawn before the commit. Within a slot rows come into sight in their order.
SLOT_BITS = 40

# Texts that are in memory at a time.
FOLDED_ROWS = 1000

# 1: text sorts by code points on every system (COLLATE "C"). `folded` is the casefolded text where
# that differs from the text. Counts are appended as deltas, one row a batch, and folded in the
# background: no two servers ever wait for each other's hot rows.
MESSAGES = """
CREATE EXTENSION IF NOT EXISTS pg_trgm;

CREATE TABLE messages (
    seq         bigint PRIMARY KEY,
    message_id  text COLLATE "C" NOT NULL UNIQUE,
    from_msisdn text COLLATE "C" NOT NULL,
    to_msisdn   text COLLATE "C" NOT NULL,
    ts          text COLLATE "C" NOT NULL,
    text        text COLLATE "C",
    instant     text COLLATE "C" NOT NULL,
    folded      text COLLATE "C",
    source      text COLLATE "C",   -- NULL: our own format
    payload     text COLLATE "C",   -- its own JSON as it came
    created_at  bigint NOT NULL     -- microseconds since 1970, by the database's clock
);
CREATE INDEX messages_by_instant ON messages (instant, message_id);
CREATE INDEX messages_by_sender ON messages (from_msisdn, instant, message_id);
CREATE INDEX messages_by_created ON messages USING brin (created_at)
    WITH (pages_per_range = 16, autosummarize = on);

-- a row for each connection that ever committed at the same time; every commit writes its own
CREATE TABLE slots (slot integer PRIMARY KEY, last bigint NOT NULL DEFAULT 0)
    WITH (fillfactor = 50);

CREATE TABLE deltas (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    n integer NOT NULL,             -- 1: stored, -1: deleted
    hours text[] COLLATE "C" NOT NULL,
    senders text[] COLLATE "C" NOT NULL,
    recipients text[] COLLATE "C" NOT NULL,
    minutes bigint[] NOT NULL       -- of created_at
);
CREATE TABLE hour_counts (hour text COLLATE "C" PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE sender_counts (from_msisdn text COLLATE "C" PRIMARY KEY, n bigint NOT NULL);
CREATE INDEX sender_counts_by_n ON sender_counts (n);
CREATE TABLE recipient_counts (to_msisdn text COLLATE "C" PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE minute_counts (minute bigint PRIMARY KEY, n bigint NOT NULL);

-- The search index: a copy, so that its upkeep holds up no delivery. It has the rows of each slot
-- up to `indexed.upto`; a search scans the few above that.
CREATE TABLE search (seq bigint PRIMARY KEY, folded text COLLATE "C" NOT NULL);
CREATE INDEX search_trigrams ON search USING gin (folded gin_trgm_ops);
CREATE TABLE indexed (slot integer PRIMARY KEY, upto bigint NOT NULL);

-- Rows that a person deletes leave the counts and the index at once.
CREATE FUNCTION forget_messages() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM gone) THEN
        INSERT INTO deltas (n, hours, senders, recipients, minutes)
            SELECT -1, array_agg(substr(instant, 1, 13)), array_agg(from_msisdn),
                array_agg(to_msisdn), array_agg(created_at / 60000000) FROM gone;
        DELETE FROM search WHERE seq IN (SELECT seq FROM gone);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER messages_deleted AFTER DELETE ON messages REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION forget_messages();

CREATE TABLE events (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash bytea NOT NULL UNIQUE,
    source text COLLATE "C" NOT NULL, kind text COLLATE "C" NOT NULL, message_id text COLLATE "C",
    body text COLLATE "C" NOT NULL, created_at bigint NOT NULL
);
CREATE INDEX events_by_created ON events (created_at, seq);
CREATE INDEX events_by_message ON events USING hash (message_id);

CREATE TABLE refused (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at bigint NOT NULL, source text COLLATE "C" NOT NULL, result text COLLATE "C" NOT NULL,
    request_id text COLLATE "C" NOT NULL, message_id text COLLATE "C",
    detail text COLLATE "C" NOT NULL, body bytea NOT NULL
);

-- rows to lock: whoever has one does the work of its name, for all servers
CREATE TABLE locks (name text PRIMARY KEY);
INSERT INTO locks VALUES ('fold'), ('search'), ('refused'), ('content');

-- random keys of this database (page cursors are signed with one)
CREATE TABLE keys (name text PRIMARY KEY, key bytea NOT NULL);
INSERT INTO keys SELECT 'cursor', decode(string_agg(
    replace(gen_random_uuid()::text, '-', ''), ''), 'hex') FROM generate_series(1, 2);

CREATE TABLE lyftr (version integer NOT NULL, unicode text NOT NULL);
INSERT INTO lyftr VALUES (0, '');
"""

# 2: what must not come back (see tombstones.py), and what is to go (see erasure.py) until it is.
KEEPING_LESS = """
-- What is oldest goes first. Rows that come later take the room of those that went, so the least
-- time in a range of pages says little.
DROP INDEX messages_by_created;
CREATE INDEX messages_by_created ON messages (created_at);

CREATE TABLE tombstones (
    hash bytea PRIMARY KEY,
    until bigint NOT NULL,              -- seconds since 1970
    version bigint NOT NULL DEFAULT 1   -- what `buried` had with it
);
CREATE INDEX tombstones_by_until ON tombstones (until);
CREATE INDEX tombstones_by_version ON tombstones (version);
CREATE TABLE buried (version bigint NOT NULL) WITH (fillfactor = 50);
INSERT INTO buried VALUES (0);
INSERT INTO keys SELECT 'tombstone', decode(string_agg(
    replace(gen_random_uuid()::text, '-', ''), ''), 'hex') FROM generate_series(1, 2);

-- HMAC-SHA256, with the key's pads
CREATE FUNCTION tombstone(message_id text, inner_pad bytea, outer_pad bytea) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT substr(sha256(outer_pad || sha256(inner_pad || convert_to(message_id, 'UTF8'))), 1, 16)
$$;
-- VOLATILE: each of its statements sees what was committed meanwhile.
CREATE FUNCTION let_in(seen bigint, ids text[], inner_pad bytea, outer_pad bytea) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF (SELECT version FROM buried) <> seen AND EXISTS (
        SELECT FROM unnest(ids) AS id JOIN tombstones ON hash = tombstone(id, inner_pad, outer_pad)
        WHERE until > extract(epoch FROM clock_timestamp())
    ) THEN
        RAISE EXCEPTION 'buried meanwhile' USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN true;
END $$;

CREATE TABLE erasures (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    person text COLLATE "C", message_id text COLLATE "C",
    heads bigint[] NOT NULL,            -- how far each slot's rows went when it was ordered
    messages bigint NOT NULL DEFAULT 0, events bigint NOT NULL DEFAULT 0,
    refused bigint NOT NULL DEFAULT 0, done_at timestamptz
);
-- Messages that an erasure took, until every server has told those who follow.
CREATE TABLE erased (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, message_id text COLLATE "C" NOT NULL
);

-- The planner needs no samples of these, and samples outlive what they are of.
ALTER TABLE messages ALTER message_id SET STATISTICS 0, ALTER to_msisdn SET STATISTICS 0,
    ALTER text SET STATISTICS 0, ALTER folded SET STATISTICS 0, ALTER payload SET STATISTICS 0;
ALTER TABLE events ALTER message_id SET STATISTICS 0, ALTER body SET STATISTICS 0;
ALTER TABLE refused ALTER message_id SET STATISTICS 0, ALTER body SET STATISTICS 0;
ALTER TABLE deltas ALTER senders SET STATISTICS 0, ALTER recipients SET STATISTICS 0;
ALTER TABLE sender_counts ALTER from_msisdn SET STATISTICS 0;
ALTER TABLE recipient_counts ALTER to_msisdn SET STATISTICS 0;
ALTER TABLE erased ALTER message_id SET STATISTICS 0;
ALTER TABLE erasures ALTER person SET STATISTICS 0, ALTER message_id SET STATISTICS 0;

-- Whoever takes rows into the index has its lock: none of them goes unseen meanwhile.
CREATE OR REPLACE FUNCTION forget_messages() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM gone) THEN
        INSERT INTO deltas (n, hours, senders, recipients, minutes)
            SELECT -1, array_agg(substr(instant, 1, 13)), array_agg(from_msisdn),
                array_agg(to_msisdn), array_agg(created_at / 60000000) FROM gone;
        PERFORM FROM locks WHERE name = 'search' FOR UPDATE;
        DELETE FROM search WHERE seq IN (SELECT seq FROM gone);
    END IF;
    RETURN NULL;
END $$;
"""

# 3: counts by day for busy senders (see sender_days.py).
SENDER_DAYS = """
CREATE TABLE sender_day_counts (
    from_msisdn text COLLATE "C" NOT NULL, day text COLLATE "C" NOT NULL, n bigint NOT NULL,
    PRIMARY KEY (from_msisdn, day)
);
ALTER TABLE sender_day_counts ALTER from_msisdn SET STATISTICS 0;
ALTER TABLE sender_counts ADD by_day boolean NOT NULL DEFAULT false;
"""

# 4: the timeline on which a slot gave its last number; 0: of before.
TIMELINES = "ALTER TABLE slots ADD timeline integer NOT NULL DEFAULT 0"

# STEPS[n] brings version n to n + 1. A released step never changes.
STEPS = (MESSAGES, KEEPING_LESS, SENDER_DAYS, TIMELINES)
VERSION = len(STEPS)


class NewerDatabase(Unusable):
    """A later version of this program wrote the database."""


class ForeignDatabase(Unusable):
    """The database is another program's, or cannot hold every text."""


async def migrate(db: Any) -> None:
    """Bring the database to this version, all steps in one transaction, one server at a time."""
    encoding = await db.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise ForeignDatabase(f"the database's encoding is {encoding}: create it with UTF8")
    async with db.transaction():
        await db.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
        version = await check(db)
        for step in STEPS[version:]:
            await db.execute(step)
        if version < VERSION:
            await db.execute("UPDATE lyftr SET version = $1", VERSION)
        await _follow_folding(db)


async def check(db: Any) -> int:
    """Return the schema's version, 0 for an empty database; NewerDatabase, ForeignDatabase."""
    ours, others = await db.fetchrow(
        "SELECT to_regclass('lyftr') IS NOT NULL, to_regclass('messages') IS NOT NULL"
    )
    if not ours:
        if others:
            raise ForeignDatabase("the database has another program's table messages")
        return 0
    version = int(await db.fetchval("SELECT version FROM lyftr"))
    if version > VERSION:
        raise NewerDatabase(
            f"the database has schema version {version}, and this program knows none after"
            f" {VERSION}: install a later one"
        )
    return version


async def _follow_folding(db: Any) -> None:
    """Fold the texts anew if they were folded in another way than ours."""
    found, ours = await db.fetchval("SELECT unicode FROM lyftr"), folding_hash()
    if found == ours:
        return
    if found and not folds_alike(found):
        logger.info("folding all texts anew: letters are folded in another way")
        after: int | None = -1
        while after is not None:
            after = await _fold_anew(db, after)
        await db.execute("TRUNCATE search, indexed")
    await db.execute("UPDATE lyftr SET unicode = $1", ours)


async def _fold_anew(db: Any, after: int) -> int | None:
    """Fold some texts; return where to go on, None at the end."""
    rows = await db.fetch(
        "SELECT seq, text, folded FROM messages WHERE seq > $1 ORDER BY seq LIMIT $2",
        after,
        FOLDED_ROWS,
    )
    changed = [(seq, folded(text)) for seq, text, before in rows if folded(text) != before]
    await db.executemany("UPDATE messages SET folded = $2 WHERE seq = $1", changed)
    return rows[-1]["seq"] if rows else None


def folded(text: str | None) -> str | None:
    """Return the casefolded text, None where it is the same."""
    if text is None:
        return None
    folded = text.casefold()
    return None if folded == text else folded
