"""lyftr-server export."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from lyftr_server.store.sqlite import schema

from ..process import RunningServer, environment, message
from .running import PROGRAM, Ended, Terminal, contents, fill, last_drawn, many, run, slowed, url


def export(database: Path, *arguments: str) -> Ended:
    return run(database.parent, "export", *arguments, DATABASE_URL=url(database))


def ids(ended: Ended) -> list[str]:
    assert (ended.status, ended.stderr) == (0, "")
    return [json.loads(line)["message_id"] for line in ended.stdout.split("\n")[:-1]]


# -- the rows


def test_it_writes_what_the_server_streams_while_that_runs(
    left_by_server: Path, server_factory, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(left_by_server, folder / "app.db")
    server = server_factory(folder)
    server.deliver(message("new", ts="2025-01-10T00:00:00Z"))
    ended = export(server.database)
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.stdout.encode() == server.get("/messages.ndjson").body
    assert len(ended.stdout.split("\n")) == 159 + 1


@pytest.mark.parametrize(
    "arguments, query",
    [
        pytest.param(["--from", "+919876543210"], "from=%2B919876543210", id="from"),
        pytest.param(["--from", "919876543210"], "from=%2B919876543210", id="from without plus"),
        pytest.param(
            ["--since", "2025-03-01T12:00:00.5Z"], "since=2025-03-01T12:00:00.5Z", id="since"
        ),
        pytest.param(["--q", "STRASSE"], "q=STRASSE", id="q"),
        pytest.param(["--q", "नम"], f"q={quote('नम')}", id="q in another script"),
        pytest.param(
            ["--from=+919876543210", "--since=2025-01-02T00:00:00Z", "--q=e"],
            "from=%2B919876543210&since=2025-01-02T00:00:00Z&q=e",
            id="all of them",
        ),
        pytest.param(["--q", "nowhere to be found"], "q=nowhere+to+be+found", id="nothing"),
    ],
)
def test_its_options_are_the_listings_filters(
    reading_server: RunningServer, arguments: list[str], query: str
) -> None:
    ended = export(reading_server.database, *arguments)
    rows = reading_server.get(f"/messages?limit=100&{query}").json()["data"]
    assert [json.loads(line) for line in ended.lines] == rows
    assert bool(rows) == ("nowhere" not in query)


@pytest.fixture(scope="module")
def reading_server(left_by_server: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("reading")
    shutil.copy(left_by_server, folder / "app.db")
    with RunningServer(folder) as server:
        yield server


# -- what it leaves as it was


def test_beside_a_stopped_server_it_makes_and_changes_no_file(database: Path) -> None:
    before = contents(database.parent)
    assert list(before) == ["app.db"]
    assert len(ids(export(database))) == 158
    assert contents(database.parent) == before


def test_a_killed_servers_messages_are_all_there_and_its_files_unchanged(
    server: RunningServer,
) -> None:
    for n in range(20):
        server.deliver(message(f"m{n:02}"))
    server.kill()
    before = contents(server.folder)
    assert ids(export(server.database)) == [f"m{n:02}" for n in range(20)]
    after = contents(server.folder)
    # The index of the WAL is no more than that; whoever opens it first after a crash makes it anew.
    del before["app.db-shm"], after["app.db-shm"]
    assert after == before


def test_a_database_in_a_folder_that_cannot_be_written_can_be_read(database: Path) -> None:
    database.parent.chmod(0o555)
    database.chmod(0o444)
    # root may write all the same: then this shows less.
    try:
        assert len(ids(run(Path("/"), "export", DATABASE_URL=url(database)))) == 158
    finally:
        database.parent.chmod(0o755)


# -- the output


def test_a_file_is_private_and_takes_the_place_of_another(database: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "messages.ndjson"
    target.parent.mkdir()
    target.write_text("old")
    old = target.stat().st_ino
    ended = export(database, "--output", str(target))
    assert ended == (0, "", "")
    assert target.read_text() == export(database).stdout
    assert target.stat().st_ino != old
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(target.parent.iterdir()) == [target]


def test_a_link_stays_a_link(database: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert export(database, "--output", str(tmp_path / "link")).status == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text().count("\n") == 158


def test_head_ends_it_quietly(large: Path) -> None:
    command = subprocess.Popen(
        [sys.executable, *PROGRAM, "export"],
        env=environment(DATABASE_URL=url(large)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout
    assert command.stdout.readline().startswith(b'{"message_id": "many-')
    command.stdout.close()
    command.stdout = None
    _, errors = command.communicate(timeout=20)
    assert (command.returncode, errors) == (141, b"")


FEW = "--q= 19999"


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_reader_that_has_gone_before_the_first_row_is_no_failure(
    large: Path, unbuffered: str
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, *PROGRAM, "export", FEW],
            env=environment(DATABASE_URL=url(large), PYTHONUNBUFFERED=unbuffered),
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize("arguments", [[], [FEW]], ids=["many rows", "few rows"])
def test_a_full_disk_is_a_failure_in_one_line(large: Path, arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, *PROGRAM, "export", *arguments],
            env=environment(DATABASE_URL=url(large), PYTHONUNBUFFERED=""),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr == b"lyftr-server export: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_one_leaves_no_file(large: Path, tmp_path: Path, number: int) -> None:
    target = tmp_path / "out" / "messages.ndjson"
    target.parent.mkdir()
    exporting = Terminal(
        tmp_path,
        *("export", "--output", str(target)),
        program=slowed(0.2),
        DATABASE_URL=url(large),
    )
    exporting.wait_for("messages")
    assert len(list(target.parent.iterdir())) == 1
    ended = exporting.end(number)
    assert ended.status == 130
    assert "Traceback" not in ended.stderr
    assert list(target.parent.iterdir()) == []


def test_a_terminal_shows_how_far_it_is_unless_rows_go_there_too(
    large: Path, tmp_path: Path
) -> None:
    to_file = Terminal(
        tmp_path,
        *("export", "--output", str(tmp_path / "out")),
        program=slowed(0.03),
        DATABASE_URL=url(large),
    ).end()
    assert to_file.status == 0
    drawn = to_file.stderr.split("\r")
    assert any("messages/s" in line and "%" in line and "left" in line for line in drawn)
    assert last_drawn(to_file.stderr) == ""


def test_a_narrow_terminal_gets_a_short_line(database: Path, tmp_path: Path) -> None:
    ended = Terminal(
        tmp_path, "export", "--output=out", COLUMNS="10", DATABASE_URL=url(database)
    ).end()
    drawn = ended.stderr.split("\r")
    assert "158 messa" in drawn
    assert max(map(len, drawn)) == 9


def test_rows_on_a_terminal_are_not_mixed_with_progress(database: Path) -> None:
    to_terminal = Terminal(
        database.parent, "export", stdout=True, program=slowed(0.01), DATABASE_URL=url(database)
    ).end()
    assert to_terminal.stderr.count("\r\n") == 158
    assert to_terminal.stderr.replace("\r\n", "").count("\r") == 0


def test_it_takes_no_more_memory_for_more_messages(tmp_path: Path, large: Path) -> None:
    few = tmp_path / "few.db"
    fill(few, many(10))
    code = (
        "import resource, sys; from lyftr_server.__main__ import main; main(['export']);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )

    def peak_kib(database: Path) -> int:
        ended = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(DATABASE_URL=url(database)),
            capture_output=True,
            timeout=60,
            check=True,
        )
        return int(ended.stderr)

    assert large.stat().st_size > 12_000_000
    assert peak_kib(large) - peak_kib(few) < 8_000


# -- what it refuses


@pytest.mark.parametrize(
    "arguments, reason",
    [
        pytest.param(["--from", "abc"], "--from must be", id="from"),
        pytest.param(["--since", "2025-1-1"], "--since must look like", id="since"),
        pytest.param(["--q", "x" * 257], "--q must have at most", id="q"),
        pytest.param(["--output", "no/such/out"], "no/such is no folder", id="no folder"),
        pytest.param(["--output", "."], "is no plain file", id="a folder"),
        pytest.param(
            ["--output", "/dev/null"], "/dev/null is there and is no plain", id="a device"
        ),
        pytest.param(["--output", "app.db"], "belongs to the database", id="the database"),
        pytest.param(["--output", "app.db-wal"], "belongs to the database", id="its WAL"),
    ],
)
def test_usage(database: Path, arguments: list[str], reason: str) -> None:
    before = contents(database.parent)
    ended = export(database, *arguments)
    assert (ended.status, ended.stdout) == (2, "")
    assert reason in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert contents(database.parent) == before


def test_the_database_under_another_name_is_not_written_over(
    database: Path, tmp_path: Path
) -> None:
    (tmp_path / "hard link").hardlink_to(database)
    (tmp_path / "link").symlink_to(database)
    for name in ("hard link", "link"):
        ended = export(database, "--output", str(tmp_path / name))
        assert ended.status == 2
        assert "database itself" in ended.stderr
    assert len(ids(export(database))) == 158


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (a)")


def _older(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(schema.STEPS[0])
        db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")


def _newer(path: Path) -> None:
    fill(path, [])
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")


def _damaged(path: Path) -> None:
    fill(path, many(1000))
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (path.stat().st_size - 12288))


@pytest.mark.parametrize(
    "make, status, reason",
    [
        pytest.param(lambda path: None, 2, "there is no such database", id="missing"),
        pytest.param(lambda path: path.write_bytes(b""), 2, "holds nothing", id="empty"),
        pytest.param(
            lambda path: path.write_bytes(b"x" * 5000), 1, "not a database", id="no database"
        ),
        pytest.param(_foreign, 2, "belongs to another program", id="another program's"),
        pytest.param(_older, 2, "start the server with it once", id="older"),
        pytest.param(_newer, 2, "install a later one", id="newer"),
        pytest.param(_damaged, 1, "malformed", id="damaged"),
    ],
)
def test_a_database_that_cannot_be_read(tmp_path: Path, make, status: int, reason: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "app.db")
    before = contents(tmp_path)
    ended = export(tmp_path / "app.db", "--output", "out")
    assert (ended.status, ended.stdout) == (status, "")
    assert reason in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert contents(tmp_path) == before


def test_a_bad_variable_is_named(tmp_path: Path) -> None:
    ended = run(tmp_path, "export", DATABASE_URL="postgres://x")
    assert ended.status == 2
    assert "DATABASE_URL must be" in ended.stderr


@pytest.mark.parametrize("command, status", [("export", 1), ("tail", 2)])
def test_closed_standard_output_is_told_in_words(database: Path, command: str, status: int) -> None:
    ended = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", sys.executable, *PROGRAM, command],
        env=environment(DATABASE_URL=url(database)),
        cwd=database.parent,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert ended.returncode == status
    assert ended.stderr == f"lyftr-server {command}: standard output is closed\n".encode()
