-- A database of schema version 1, as that version wrote it. It stays as it is.
PRAGMA application_id = 1280919124;
PRAGMA user_version = 1;
CREATE TABLE messages (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id  TEXT NOT NULL UNIQUE,
    from_msisdn TEXT NOT NULL,
    to_msisdn   TEXT NOT NULL,
    ts          TEXT NOT NULL,
    text        TEXT,
    created_at  INTEGER NOT NULL, -- microseconds since 1970, by the server's clock
    instant     TEXT NOT NULL GENERATED ALWAYS AS (
        CASE WHEN instr(ts, '.') THEN rtrim(rtrim(rtrim(ts, 'Z'), '0'), '.') ELSE rtrim(ts, 'Z') END
    ) VIRTUAL
) STRICT;
CREATE INDEX messages_by_instant ON messages (instant, message_id);
CREATE INDEX messages_by_sender ON messages (from_msisdn, instant, message_id);
CREATE TRIGGER messages_are_immutable BEFORE UPDATE ON messages BEGIN
    SELECT RAISE(ABORT, 'messages are immutable: delete the row and insert another');
END;
CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), at INTEGER NOT NULL) STRICT;
INSERT INTO probe VALUES (1, 0);
CREATE TABLE keys (name TEXT PRIMARY KEY, key BLOB NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO keys VALUES ('cursor', x'00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff');
INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at) VALUES
    ('m1', '+1', '+9', '2025-01-15T10:00:00Z', 'Straße', 1736935200000000),
    ('m2', '+1', '+8', '2025-01-15T10:00:00.5Z', NULL, 1736935200500000),
    ('m3', '+2', '+9', '2025-01-16T00:00:00.000Z', 'hello', 1736935260000000);
