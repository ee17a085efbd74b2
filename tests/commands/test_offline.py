"""Reading a database file while a server may start, write or end at any moment."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lyftr_server.records import Message
from lyftr_server.schema import MessageQuery
from lyftr_server.store import StoreError
from lyftr_server.store.sqlite import offline
from lyftr_server.store.sqlite.offline import DatabaseFile

from .running import contents, fill, many

MESSAGE = Message("new", "+1", "+2", "2026-01-01T00:00:00Z", "new")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    fill(path, many(3000))
    return path


@pytest.fixture
def writer(path: Path) -> Iterator[sqlite3.Connection]:
    """What a running server has."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        yield db


def insert(db: sqlite3.Connection, message_id: str) -> None:
    db.execute(
        "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at)"
        " VALUES (?, ?, ?, ?, ?, 0)",
        MESSAGE._replace(message_id=message_id),
    )


def count(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM messages").fetchone()[0])


def test_what_was_read_while_a_server_started_is_read_again(path: Path) -> None:
    found = []
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as server,
        DatabaseFile(path) as source,
    ):

        def work(db: sqlite3.Connection) -> int:
            if not found:
                insert(server, "new")
            found.append(count(db))
            return found[-1]

        assert source.run(work) == 3001
    assert found == [3000, 3001]


def test_what_was_read_while_a_server_came_and_went_is_read_again(path: Path) -> None:
    tried = []

    def work(db: sqlite3.Connection) -> int:
        if not tried:
            with closing(sqlite3.connect(path, isolation_level=None)) as server:
                insert(server, "new")
        tried.append(db)
        return count(db)

    with DatabaseFile(path) as source:
        assert source.run(work) == 3001
        assert source.run(work) == 3001
    assert len(tried) == 3
    assert os.listdir(path.parent) == ["app.db"]


def test_a_failure_while_a_server_started_is_none(path: Path) -> None:
    failures = []

    def work(db: sqlite3.Connection) -> str:
        if not failures:
            path.with_name("app.db-wal").touch()
            failures.append("malformed")
            raise sqlite3.DatabaseError("malformed")
        return "read"

    with DatabaseFile(path) as source:
        assert source.run(work) == "read"


def test_any_other_failure_is_one(path: Path) -> None:
    with DatabaseFile(path) as source, pytest.raises(StoreError, match="no such table"):
        source.run(lambda db: db.execute("SELECT * FROM nowhere"))


def test_readers_beside_a_server_see_what_it_commits(
    path: Path, writer: sqlite3.Connection
) -> None:
    with DatabaseFile(path) as source:
        insert(writer, "a")
        assert source.run(count) == 3001
        insert(writer, "b")
        assert source.run(count) == 3002


def test_nothing_can_be_written_through_it(path: Path, writer: sqlite3.Connection) -> None:
    before = contents(path.parent)
    for _ in ("alone", "beside a server"):
        with DatabaseFile(path) as source, pytest.raises(StoreError, match="readonly"):
            source.run(lambda db: db.execute("DELETE FROM messages"))
        assert contents(path.parent) == before
        count(writer)
        before = contents(path.parent)


def test_rows_come_once_and_in_order_while_more_are_stored(
    path: Path, writer: sqlite3.Connection
) -> None:
    found = []
    with DatabaseFile(path) as source:
        for chunk in source.rows(MessageQuery()):
            insert(writer, f"new-{len(found)}")  # the last of the listing
            found += [row.message_id for row in chunk]
    assert len(found) == len(set(found)) == 3003
    assert found[-3:] == ["new-0", "new-1000", "new-2000"]


def test_a_copy_is_of_one_moment_and_never_begins_anew(
    path: Path, tmp_path: Path, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "COPY_PAGES", 4)
    target = tmp_path / "copy"
    target.touch()
    insert(writer, "before")
    done = []

    def heard(bytes_done: int, _total: int) -> None:
        assert len(done) < 10_000
        insert(writer, f"during-{len(done)}")
        done.append(bytes_done)

    with DatabaseFile(path) as source:
        messages = source.run(offline.copy, target, heard)
    assert len(done) > 10
    assert done == sorted(set(done))
    assert messages == 3001
    offline.check_copy(target, messages, lambda: None)
    with closing(sqlite3.connect(target)) as db:
        assert count(db) == 3001


def test_the_writer_never_waits_for_a_copy(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "COPY_PAGES", 16)
    (tmp_path / "copy").touch()
    # timeout=0: a lock that is held would be an error at once.
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as server:
        count(server)
        with DatabaseFile(path) as source:
            source.run(offline.copy, tmp_path / "copy", lambda done, _: insert(server, str(done)))
        assert server.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


@pytest.mark.parametrize(
    "harm, reason",
    [
        pytest.param(
            "DELETE FROM messages WHERE seq = 7", "2999 messages instead", id="a row less"
        ),
        pytest.param(None, "cannot be read|damaged", id="a damaged page"),
    ],
)
def test_a_copy_that_is_not_whole_is_found_out(path: Path, harm: str | None, reason: str) -> None:
    if harm:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute(harm)
    else:
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2 // 4096 * 4096)
            file.write(b"\xff" * 4096)
    with pytest.raises(StoreError, match=reason):
        offline.check_copy(path, 3000, lambda: None)


def test_a_name_with_characters_of_a_url_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "100% of #1?mode=rw.db"
    fill(path, many(1))
    with DatabaseFile(path) as source:
        assert source.run(count) == 1
    assert stat.S_ISREG(path.stat().st_mode)
    assert os.listdir(tmp_path) == [path.name]
