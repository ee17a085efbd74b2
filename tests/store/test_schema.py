"""The schema: versions, steps that survive being killed, and what the tables hold by themselves."""

import logging
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from lyftr_server.schema import MessageQuery
from lyftr_server.store.folding import folding_hash, folds_alike
from lyftr_server.store.sqlite import listing, reads, schema, search, verify

from .databases import database, fold_all, go_on, insert, message, texts

VERSION_1 = Path(__file__).with_name("version1.sql")


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    with database(path, migrate=False) as db:
        db.executescript(VERSION_1.read_text(encoding="utf-8"))
    return path


def die(path: Path, work: str, statement: int) -> int:
    """Let a process do the work up to a statement; return its exit status."""
    return subprocess.run(
        [sys.executable, "-m", "tests.store.dying", str(path), work, str(statement)], check=False
    ).returncode


def test_an_empty_file_becomes_a_database_of_this_version(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        assert schema.check(db) == schema.VERSION
        schema.migrate(db)
        assert reads.total(db) == 0
        assert list(verify.problems(db, deep=True)) == []


def test_each_database_has_its_own_cursor_key(tmp_path: Path) -> None:
    with database(tmp_path / "a.db") as a, database(tmp_path / "b.db") as b:
        keys = [db.execute("SELECT key FROM keys").fetchone()[0] for db in (a, b)]
    assert len(keys[0]) == 32
    assert keys[0] != keys[1]


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
        with pytest.raises(schema.NewerDatabase, match="install a later one"):
            schema.migrate(db)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("CREATE TABLE notes (id)", id="tables of another program"),
        pytest.param("PRAGMA application_id = 252006674; CREATE TABLE t (id)", id="its mark"),
        pytest.param("PRAGMA user_version = 1", id="its version"),
        pytest.param(
            "PRAGMA user_version = 1; CREATE TABLE messages (message_id)", id="messages of others"
        ),
    ],
)
def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path, script: str) -> None:
    path = tmp_path / "app.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript(script)
    before = path.read_bytes()
    with pytest.raises(schema.ForeignDatabase):
        schema.migrate(db)
    db.close()
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_sqlites_error(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    path.write_bytes(b"message_id,text\n" * 100)
    db = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        schema.migrate(db)
    db.close()


def test_version_1_is_brought_forward(version_1: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with database(version_1) as db:
        assert "migrating 3 messages from schema version 1 to 2" in caplog.text
        assert f"migrated to schema version {schema.VERSION}" in caplog.text
        _is_whole(db)


def test_version_1_has_the_tables_that_this_program_makes_first() -> None:
    # A released step never changes: databases that had it are not given it again.
    def tables(script: str) -> dict[str, str]:
        db = sqlite3.connect(":memory:")
        db.executescript(script)
        found = dict(db.execute("SELECT name, sql FROM sqlite_schema WHERE sql NOT NULL"))
        db.close()
        return found

    assert tables(VERSION_1.read_text(encoding="utf-8")) == tables(schema.STEPS[0])


@pytest.mark.parametrize("statement", [2, 6, 12, 20, 30, 40, 50])
def test_a_migration_that_is_killed_goes_on_at_the_next_start(
    version_1: Path, statement: int
) -> None:
    assert die(version_1, "migrate", statement) == -signal.SIGKILL
    with database(version_1) as db:
        _is_whole(db)


def test_a_first_start_that_is_killed_is_made_up_for(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    for statement in (3, 8, 15, 50):
        assert die(path, "migrate", statement) == -signal.SIGKILL
    with database(path) as db:
        insert(db, [message()])
        assert reads.total(db) == 1


def _is_whole(db: sqlite3.Connection) -> None:
    assert schema.check(db) == schema.VERSION
    assert search.backlog(db) == 3
    fold_all(db)
    assert search.backlog(db) == 0
    assert list(verify.problems(db, deep=True)) == []
    assert reads.stats(db, 1736935260000000)["messages_per_sender"] == [
        {"from": "+1", "count": 2},
        {"from": "+2", "count": 1},
    ]
    found = reads.page(db, MessageQuery(q="STRASSE"), go_on)
    assert [row.message_id for row in found.data] == ["m1"]


def test_another_folding_makes_the_index_anew(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts("hello", "world"))
        fold_all(db)
        schema.migrate(db)
        assert search.backlog(db) == 0
        (version,) = db.execute("SELECT unicode FROM search_state").fetchone()
        assert version == folding_hash()
        # What 0.1.0 wrote under Python 3.11 to 3.13, which all fold alike.
        for alike in ("14.0.0", "15.0.0", "15.1.0"):
            db.execute("UPDATE search_state SET unicode = ?", (alike,))
            schema.migrate(db)
            assert search.backlog(db) == (0 if folds_alike("15.0.0") else 2)
            fold_all(db)
        assert db.execute("SELECT unicode FROM search_state").fetchone() == (version,)
        db.execute("UPDATE search_state SET unicode = '1.1.0'")
        schema.migrate(db)
        assert search.backlog(db) == 2
        fold_all(db)
        assert list(verify.problems(db, deep=True)) == []


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2025-01-15T10:00:00Z", "2025-01-15T10:00:00.000000001Z"),
        ("2025-01-15T10:00:00.5Z", "2025-01-15T10:00:01Z"),
        ("2025-01-15T10:00:00.05Z", "2025-01-15T10:00:00.5Z"),
        ("2025-01-15T10:00:00.5Z", "2025-01-15T10:00:00.50000001Z"),
        ("2025-01-15T09:59:59.999999999Z", "2025-01-15T10:00:00Z"),
        ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z"),
    ],
)
def test_instants_sort_by_time(tmp_path: Path, earlier: str, later: str) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, [message("a", ts=later), message("b", ts=earlier)])
        rows = db.execute("SELECT ts, instant FROM messages ORDER BY instant").fetchall()
    assert [ts for ts, _ in rows] == [earlier, later]
    assert [instant for _, instant in rows] == [listing.instant(earlier), listing.instant(later)]


@pytest.mark.parametrize(
    "same", ["2025-01-15T10:00:00Z", "2025-01-15T10:00:00.0Z", "2025-01-15T10:00:00.000000000Z"]
)
def test_trailing_zeros_are_the_same_instant(tmp_path: Path, same: str) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, [message(ts=same)])
        (instant,) = db.execute("SELECT instant FROM messages").fetchone()
    assert instant == listing.instant(same) == "2025-01-15T10:00:00"


def test_rows_cannot_be_changed(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, [message()])
        with pytest.raises(sqlite3.IntegrityError, match="immutable"):
            db.execute("UPDATE messages SET text = 'x'")


def test_a_seq_below_the_watermark_cannot_be_given(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts("a", "b", "c"))
        db.execute("DELETE FROM messages WHERE seq = 2")
        fold_all(db)
        with pytest.raises(sqlite3.IntegrityError, match="leave it out"):
            db.execute(
                "INSERT INTO messages (seq, message_id, from_msisdn, to_msisdn, ts, created_at)"
                " VALUES (2, 'x', '+1', '+2', '2025-01-15T10:00:00Z', 0)"
            )
        insert(db, [message("x")])
        assert reads.total(db) == 3
