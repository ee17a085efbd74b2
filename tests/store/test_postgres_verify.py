"""What is derived from PostgreSQL's messages, recounted."""

import pytest

from lyftr_server.store.postgres import upkeep, verify

from .databases import message
from .test_postgres import Database, database

__all__ = ["database"]

WRONG = [
    ("UPDATE hour_counts SET n = n + 1", "hour_counts: 1 rows"),
    ("UPDATE deltas SET minutes = minutes || 5::bigint", "minute_counts: 1 rows"),
    ("DELETE FROM recipient_counts", "recipient_counts: 1 rows"),
    ("UPDATE sender_day_counts SET n = n + 1", "sender_day_counts: 1 rows"),
    ("INSERT INTO sender_counts VALUES ('+7', 0)", "counts of nobody are kept"),
    ("DELETE FROM search WHERE seq = 1", "the search index lacks"),
    ("UPDATE search SET folded = 'x'", "a text that no message has"),
    ("UPDATE messages SET folded = 'x' WHERE seq = 4", "another folded text"),
    ("UPDATE messages SET instant = ts", "another folded text or instant"),
    ("UPDATE slots SET last = 1", "a number that its slot has not given"),
    ("INSERT INTO tombstones VALUES ('short', 5)", "a tombstone is no hash"),
]

NOT_DERIVED = ("a tombstone is no hash",)


@pytest.mark.parametrize("statement, words", [("SELECT", None), *WRONG])
def test_what_does_not_fit_is_named(database: Database, statement: str, words: str | None) -> None:
    database.insert([message(f"m{n}", text=f"Straße {n}") for n in range(3)])
    database.run(upkeep.fold(database.db))
    database.run(upkeep.index(database.db))
    # And what is not folded or indexed yet.
    database.insert([message(f"n{n}", text=None if n else "Later") for n in range(2)])
    database.run(database.db.execute(statement))
    messages, problems = database.run(verify.verify(database.db, deep=True))
    assert messages == 5
    if words is None:
        assert list(problems) == []
    else:
        assert any(words in problem for problem in problems), problems
    database.run(verify.repair(database.db))
    messages, problems = database.run(verify.verify(database.db, deep=True))
    # A tombstone is derived from nothing that is still there.
    assert (messages, list(problems)) == (5, [words] if words in NOT_DERIVED else [])
    assert database.run(database.db.fetchval("SELECT count(*) FROM search")) == 3
