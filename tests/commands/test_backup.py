"""lyftr-server backup, and restoring what it made."""

import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from lyftr_server.store.sqlite import schema

from ..process import SECRET, RunningServer, as_body, environment, message
from .running import (
    PROGRAM,
    Ended,
    Terminal,
    contents,
    fill,
    last_drawn,
    many,
    run,
    slowed,
    url,
)


def backup(database: Path, *arguments: str) -> Ended:
    return run(database.parent, "backup", *arguments, DATABASE_URL=url(database))


def rows(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as db:
        return db.execute(
            "SELECT message_id, from_msisdn, to_msisdn, ts, text, created_at FROM messages"
            " ORDER BY seq"
        ).fetchall()


# -- while messages keep coming


@pytest.mark.slow
def test_a_backup_while_messages_come_is_restored(
    tmp_path: Path, server: RunningServer, server_factory
) -> None:  # type: ignore[no-untyped-def]
    server.deliver(message("first"))
    file = tmp_path / "file"
    file.write_bytes(
        b"".join(as_body(message(f"m{n}", text="x" * 500)) + b"\n" for n in range(3000))
    )
    copy = tmp_path / "backup.db"
    sending = Terminal(tmp_path, "send", str(file), "--url", server.url, WEBHOOK_SECRET=SECRET)
    sending.wait_for("left")
    assert backup(server.database, str(copy)).status == 0
    assert sending.process.poll() is None, "all was sent before the backup ended"
    assert sending.end().stdout == "created 3000, duplicate 0, conflict 0, refused 0\n"
    server.stop()

    # What was committed first, without a gap.
    kept = rows(copy)
    everything = rows(server.database)
    assert 1 <= len(kept) < len(everything) == 3001
    assert kept == everything[: len(kept)]
    assert run(tmp_path, "verify", str(copy)).lines[0] == (
        f"{copy}: {len(kept)} messages; everything fits"
    )

    # Back to the state of the backup, as the help has it; then life goes on.
    for end in ("-wal", "-shm"):
        server.database.with_name(f"app.db{end}").unlink(missing_ok=True)
    shutil.copy(copy, server.database)
    again = server_factory(server.folder)
    page = again.get("/messages?limit=1").json()
    assert page["total"] == len(kept)
    assert again.get("/messages/first").json()["text"] == "Hello"
    assert again.deliver(message("first")).headers["X-Result"] == "duplicate"
    assert again.deliver(message("after")).headers["X-Result"] == "created"
    again.stop()
    assert run(tmp_path, "verify", str(server.database)).status == 0


def test_the_copy_is_one_private_file(server: RunningServer, tmp_path: Path) -> None:
    server.deliver(message())
    (tmp_path / "out").mkdir()
    copy = tmp_path / "out" / "backup.db"
    assert backup(server.database, str(copy)).status == 0
    assert os.listdir(tmp_path / "out") == ["backup.db"]
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT message_id FROM messages").fetchall() == [("m1",)]


def test_beside_a_stopped_server_it_makes_and_changes_no_file(
    database: Path, tmp_path: Path
) -> None:
    before = contents(database.parent)
    assert backup(database, str(tmp_path / "copy")).status == 0
    assert contents(database.parent) == before
    assert rows(tmp_path / "copy") == rows(database)


def test_a_killed_servers_messages_are_in_the_copy(server: RunningServer, tmp_path: Path) -> None:
    for n in range(5):
        server.deliver(message(f"m{n}"))
    server.kill()
    assert backup(server.database, str(tmp_path / "copy")).status == 0
    assert [row[0] for row in rows(tmp_path / "copy")] == [f"m{n}" for n in range(5)]


def test_a_database_of_an_earlier_version_can_be_copied_before_the_upgrade(tmp_path: Path) -> None:
    old = tmp_path / "app.db"
    with closing(sqlite3.connect(old)) as db:
        db.executescript(schema.STEPS[0])
        db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
    assert backup(old, "copy").status == 0
    assert (tmp_path / "copy").stat().st_size == old.stat().st_size


# -- the target


def test_a_file_that_is_there_is_replaced_only_when_told(database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_text("precious")
    ended = backup(database, str(copy))
    assert (ended.status, ended.stdout) == (2, "")
    assert "--force" in ended.stderr
    assert copy.read_text() == "precious"
    assert backup(database, "--force", str(copy)).status == 0
    assert len(rows(copy)) == 158


@pytest.mark.parametrize(
    "target, reason",
    [
        pytest.param("app.db", "belongs to the database", id="the database"),
        pytest.param("app.db-wal", "belongs to the database", id="its WAL"),
        pytest.param("app.db-lock", "belongs to the database", id="its lock"),
        pytest.param("link", "belongs to the database", id="a link to it"),
        pytest.param("hard", "is the database itself", id="a hard link to it"),
        pytest.param("no/copy", "no is no folder", id="no folder"),
        pytest.param(".", "no plain file", id="a folder"),
        pytest.param("/dev/null", "no plain file", id="a device"),
    ],
)
def test_targets_that_are_refused_even_by_force(database: Path, target: str, reason: str) -> None:
    (database.parent / "link").symlink_to(database)
    (database.parent / "hard").hardlink_to(database)
    before = contents(database.parent)
    ended = backup(database, "--force", target)
    assert (ended.status, ended.stdout) == (2, "")
    assert reason in ended.stderr
    assert contents(database.parent) == before


def test_without_a_database_there_is_no_copy(tmp_path: Path) -> None:
    ended = backup(tmp_path / "none.db", "copy")
    assert (ended.status, ended.stdout) == (2, "")
    assert "none.db: there is no such database" in ended.stderr
    assert list(tmp_path.iterdir()) == []


# -- no half copy


def test_a_damaged_database_gives_no_copy(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    fill(path, many(2000))
    with path.open("r+b") as file:
        # A page in the middle, so that the copying itself goes well.
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)
    ended = backup(path, "copy")
    assert (ended.status, ended.stdout) == (1, "")
    assert "damaged" in ended.stderr or "malformed" in ended.stderr
    assert os.listdir(tmp_path) == ["app.db"]


def test_a_disk_that_is_too_small_gets_no_half_copy(large: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    (tmp_path / "out").mkdir()
    ended = subprocess.run(
        [sys.executable, *PROGRAM, "backup", str(tmp_path / "out" / "copy")],
        env=environment(DATABASE_URL=url(large)),
        preexec_fn=limit,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert ended.stderr.startswith(b"lyftr-server backup: ")
    assert ended.stderr.count(b"\n") == 1
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_one_leaves_no_file(large: Path, tmp_path: Path, number: int) -> None:
    (tmp_path / "out").mkdir()
    copying = Terminal(tmp_path, "backup", "out/copy", program=slowed(0.5), DATABASE_URL=url(large))
    copying.wait_for("MB")
    assert os.listdir(tmp_path / "out") != []
    ended = copying.end(number)
    assert ended.status == 130
    assert "Traceback" not in ended.stderr
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.slow
def test_a_terminal_shows_how_far_it_is(large: Path, tmp_path: Path) -> None:
    ended = Terminal(tmp_path, "backup", "copy", program=slowed(0.2), DATABASE_URL=url(large)).end()
    assert ended.status == 0
    drawn = ended.stderr.split("\r")
    assert any("MB/s" in line and "%" in line and "left" in line for line in drawn)
    assert any(line.startswith("checking the copy") for line in drawn)
    assert last_drawn(ended.stderr) == ""


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_the_copy_is_synced_before_it_gets_its_name_and_the_folder_after(
    database: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    calls = "trace=openat,fsync,fdatasync,rename,renameat,renameat2"
    subprocess.run(
        [
            "strace",
            "-f",
            "-y",
            "-o",
            trace,
            "-e",
            calls,
            sys.executable,
            *PROGRAM,
            "backup",
            "copy",
        ],
        env=environment(DATABASE_URL=url(database)),
        cwd=tmp_path,
        timeout=30,
        check=True,
    )
    pattern = re.compile(r"(fsync|rename\w*)\((?:\d+<|\")([^>\"]+)[>\"](?:, \"([^\"]+)\")?")
    found = pattern.findall(trace.read_text())
    temporary = tmp_path / found[-1][1]
    place = next(n for n, call in enumerate(found) if call[0].startswith("rename"))
    before, renamed, after = found[place - 1], found[place], found[place + 1]
    assert renamed[2] == str(tmp_path / "copy")
    assert before[:2] == ("fsync", renamed[1])
    assert after[:2] == ("fsync", str(tmp_path))
    assert temporary


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
def test_what_another_database_left_beside_the_target_does_not_spoil_the_copy(
    database: Path, tmp_path: Path, end: str
) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t (x)")
        db.execute("INSERT INTO t VALUES (zeroblob(100000))")
        db.commit()
        left = other.with_name(other.name + "-wal").read_bytes()  # gone once it is closed
    target = tmp_path / "copy.db"
    beside = target.with_name(target.name + end)
    beside.write_bytes(left)
    refused = backup(database, str(target))
    assert (refused.status, target.exists(), beside.exists()) == (2, False, True)
    assert "--force" in refused.stderr
    assert backup(database, "--force", str(target)).status == 0
    assert not beside.exists()
    assert run(tmp_path, "verify", str(target)).status == 0
