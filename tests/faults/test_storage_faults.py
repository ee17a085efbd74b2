"""When the disk or the file fails: 503 and never a 200, reads go on, one ERROR, and it recovers."""

import errno
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lyftr_server.records import Message
from lyftr_server.store import MessageStore, StoreError

from ..conftest import ErrorLog, ServerFactory
from ..process import RunningServer, message, native, run_to_end, samples
from ..sources.senders import NATIVE, SENDERS, VARIABLES, Sender
from .clients import Senders, check_answers, check_database, messages, stored
from .conftest import FaultyServerFactory

SERVE = ("-m", "lyftr_server", "serve")


def refuses(server: RunningServer, message_id: str = "refused", sender: Sender = NATIVE) -> None:
    """Hold that a delivery is answered as our own failure, which the sender may try again."""
    body = sender.body(message_id, "Hello")
    answer = server.request("POST", sender.route, body, sender.sign(body))
    assert answer.status == 503
    assert answer.json() == {"detail": "storage is unavailable"}
    assert int(answer.headers["Retry-After"]) >= 1


def unready(server: RunningServer) -> str:
    """Return why the server is not ready, once it says so."""
    deadline = time.monotonic() + 60  # a write within the last second answers for the probe
    while (answer := server.get("/health/ready")).status == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert answer.status == 503
    content = answer.json()
    assert content["status"] == "unavailable"
    assert server.get("/health/live").status == 200
    detail: str = content["detail"]
    return detail


def recovers(server: RunningServer, message_id: str = "recovered", seconds: float = 60) -> None:
    """Hold that it takes messages again by itself, and says so, once."""
    deadline = time.monotonic() + seconds
    while server.deliver(message(message_id)).status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # The database's own connections may have to be opened anew.
    while server.get("/health/ready").status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def errors(server: RunningServer) -> list[str]:
    """Return the words of the ERROR lines that are no request's."""
    lines = [line for line in server.log_lines() if line["level"] in ("ERROR", "CRITICAL")]
    return [line.get("message") or line["event"] for line in lines if "method" not in line]


def recoveries(server: RunningServer) -> list[str]:
    """Return the levels of the lines that say that it can write again."""
    lines = server.log_lines()
    return [line["level"] for line in lines if line.get("message", "").endswith("again")]


def reads_go_on(server: RunningServer, rows: int) -> None:
    assert server.get("/messages").json()["total"] == rows
    assert server.get("/messages?q=hello").json()["total"] == rows
    assert server.get("/stats").json()["total_messages"] == rows


def deliver_some(server: RunningServer, count: int = 5) -> None:
    assert {server.deliver(message(f"before-{n}")).status for n in range(count)} == {200}


# -- errors of system calls


@pytest.mark.parametrize(
    "number, why",
    [
        pytest.param(errno.ENOSPC, "database or disk is full", id="ENOSPC"),
        pytest.param(errno.EIO, "disk I/O error", id="EIO"),
        pytest.param(errno.EROFS, "disk I/O error", id="EROFS"),
        pytest.param(errno.EDQUOT, "disk I/O error", id="EDQUOT"),
    ],
)
def test_a_failing_write_is_a_503_until_it_succeeds(
    number: int, why: str, faulty: FaultyServerFactory
) -> None:
    server, disk = faulty()
    deliver_some(server)
    disk.fail(writes=number)
    for n in range(20):
        refuses(server, f"refused-{n}", SENDERS[n % len(SENDERS)])
    assert why in unready(server)
    reads_go_on(server, 5)
    found = samples(server.get("/metrics").body)
    assert found["lyftr_ready"] == 0
    assert found["lyftr_storage_errors_total"] >= 20
    assert found['webhook_requests_total{result="storage_error"}'] == 20
    for sender in SENDERS:
        labels = f'result="storage_error",source="{sender.source}"'
        assert found[f"lyftr_deliveries_total{{{labels}}}"] == 20 / len(SENDERS)
    assert errors(server) == [f"the database cannot be written: {why}"]
    disk.heal()
    recovers(server, "refused-3")
    reads_go_on(server, 6)
    server.stop()
    assert len(errors(server)) == 1
    assert stored(server.database).keys() == {*(f"before-{n}" for n in range(5)), "refused-3"}


def test_each_episode_has_its_error_line(faulty: FaultyServerFactory) -> None:
    server, disk = faulty()
    for episode in range(3):
        disk.fail(writes=errno.EIO)
        refuses(server)
        unready(server)
        disk.heal()
        recovers(server, f"m{episode}")
    assert errors(server) == ["the database cannot be written: disk I/O error"] * 3
    assert recoveries(server) == ["WARNING"] * 3


def test_a_failing_read_is_a_503_and_no_500(faulty: FaultyServerFactory) -> None:
    server, disk = faulty()
    deliver_some(server)
    disk.fail(reads=errno.EIO)
    # First while the last write is a moment old, and only the reader meets the fault.
    # SQLite takes EIO from a read for a sign of a damaged file.
    assert unready(server) in ("disk I/O error", "database disk image is malformed")
    asked = ("/messages", "/messages?from=919876543210", "/messages?q=hello", "/messages/before-1")
    statuses = [server.get(path).status for path in (*asked, "/stats", "/messages.ndjson")]
    assert 503 in statuses
    assert {*statuses} <= {200, 503}  # what a reader holds already it need not read
    assert server.get("/health/ready").status == 503
    assert samples(server.get("/metrics").body)["lyftr_ready"] == 0
    disk.heal()
    recovers(server)
    reads_go_on(server, 6)


@pytest.mark.slow
def test_errors_under_load_lose_nothing(faulty: FaultyServerFactory) -> None:
    server, disk = faulty()
    with Senders(server, messages("load"), kinds=SENDERS) as senders:
        for _ in range(3):
            for number in (errno.ENOSPC, errno.EIO):
                senders.wait_for(len(senders.acknowledged) + 50)
                disk.fail(writes=number)
                time.sleep(0.1)
                disk.heal()
        senders.wait_for(len(senders.acknowledged) + 50)
    assert senders.answers.keys() == {200, 503}
    check_answers(server, len(stored(server.database)))
    server.stop()
    check_database(server.database, senders.acknowledged, senders.attempted)


async def test_a_row_that_the_schema_refuses_is_never_acknowledged(
    store: MessageStore, error_log: ErrorLog
) -> None:
    """Only a repeat may be passed over; INSERT OR IGNORE would pass this over too."""
    error_log.expected = True
    nobody: Any = None
    whole = Message("m1", "+1", "+2", "2025-01-15T10:00:00Z", "x")
    with pytest.raises(StoreError):
        await store.insert(native(whole._replace(to_msisdn=nobody)))
    assert await store.insert(native(whole)) == "created"


# -- a failed sync: nobody knows what is on the disk


def test_a_failed_sync_ends_the_process_and_a_restart_has_everything(
    faulty: FaultyServerFactory, server_factory: ServerFactory
) -> None:
    server, disk = faulty()
    with Senders(server, messages("synced"), connections=4, kinds=SENDERS) as senders:
        senders.wait_for(100)
        disk.fail(syncs=errno.EIO)
        assert server.wait() == 1
    assert {*senders.answers} <= {200, 503}
    assert errors(server)[:2] == ["the database cannot be written: disk I/O error", "sync_failed"]
    disk.heal()
    again = server_factory(server.folder, **VARIABLES)
    senders.port = again.port
    rows = check_database(server.database, senders.acknowledged, senders.attempted)
    check_answers(again, rows)
    with senders:
        senders.wait_for(len(senders.acknowledged) + 10)
    assert not set(errors(again))


def test_a_failed_sync_of_the_probe_ends_the_process_too(faulty: FaultyServerFactory) -> None:
    server, disk = faulty()
    deliver_some(server)
    time.sleep(1.1)
    disk.fail(syncs=errno.EIO)
    assert server.get("/health/ready").status == 503
    assert server.wait() == 1


# -- a disk that is really full


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """A small file system of its own; skips where it cannot be mounted."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "lyftr-test", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def needs_mount() -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a file system")


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_a_full_disk(tmp_path: Path) -> None:
    needs_mount()
    with tmpfs(tmp_path / "small", "24m") as folder:
        # The log is elsewhere: this is about the database.
        variables = VARIABLES | {"DATABASE_URL": f"sqlite:///{folder}/app.db"}
        with RunningServer(
            tmp_path / "server", errors_expected=True, variables=variables
        ) as server:
            server.database = folder / "app.db"
            deliver_some(server)
            filler = folder / "filler"
            fill(filler)
            accepted = []
            for n in range(3000):
                answer = server.deliver(message(f"full-{n}", text="x" * 2000))
                if answer.status != 200:
                    break
                accepted.append(f"full-{n}")
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            for n in range(12):
                refuses(server, f"refused-{n}", SENDERS[n % len(SENDERS)])
            assert "full" in unready(server) or "I/O" in unready(server)
            reads = server.get("/messages?limit=1").json()["total"]
            assert reads == 5 + len(accepted)
            # What upkeep finds room for in between, on a slow machine, is another episode.
            episodes = [each for each in errors(server) if "cannot be written" in each]
            assert len(episodes) == 1 + len(recoveries(server))
            filler.unlink()
            recovers(server)
            server.stop()
            assert stored(server.database).keys() >= {*accepted, "recovered"}
            assert len(stored(server.database)) == 6 + len(accepted)


def test_a_database_that_may_not_be_written_is_refused_at_the_start(
    server_factory: ServerFactory, tmp_path: Path
) -> None:
    needs_mount()
    with tmpfs(tmp_path / "read-only", "8m") as folder:
        url = {"DATABASE_URL": f"sqlite:///{folder}/app.db"}
        server = server_factory(DATABASE_URL=url["DATABASE_URL"])
        deliver_some(server)
        server.stop()
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        ended = run_to_end(tmp_path, *SERVE, WEBHOOK_SECRET="s", PORT="0", **url)
        assert (ended.returncode, ended.stderr) == (1, b"")
        assert b"cannot_start" in ended.stdout
        assert b"Read-only file system" in ended.stdout


# -- files that go away, or become others


def move_away(database: Path) -> None:
    database.rename(database.with_name("elsewhere"))


def move_back(database: Path) -> None:
    database.unlink(missing_ok=True)
    database.with_name("elsewhere").rename(database)


def replace(database: Path) -> None:
    move_away(database)
    shutil.copy(database.with_name("elsewhere"), database)


def wal(database: Path) -> Path:
    return database.with_name(database.name + "-wal")


FILES: list[Any] = [
    pytest.param(lambda database: database, "app.db", id="database"),
    pytest.param(wal, "app.db-wal", id="wal"),
]


@pytest.mark.parametrize("file, name", FILES)
@pytest.mark.parametrize(
    "lose, word",
    [
        pytest.param(move_away, "deleted", id="deleted"),
        pytest.param(replace, "replaced", id="replaced"),
    ],
)
def test_a_lost_file_is_a_503_until_it_is_back(
    file: Callable[[Path], Path],
    name: str,
    lose: Callable[[Path], None],
    word: str,
    server_factory: ServerFactory,
) -> None:
    server = server_factory(errors_expected=True)
    deliver_some(server)
    lost = file(server.database)
    lose(lost)
    names = {path.name for path in server.folder.iterdir()}
    before = lost.read_bytes() if lost.exists() else None
    for n in range(10):
        refuses(server, f"refused-{n}")
    assert f"{name} was {word}" in unready(server)
    assert server.get("/messages").json()["total"] >= 5
    assert len(errors(server)) == 1
    # Nothing was made or touched in the place of what is lost.
    assert {path.name for path in server.folder.iterdir()} == names
    assert (lost.read_bytes() if lost.exists() else None) == before
    move_back(lost)
    recovers(server)
    server.stop()
    assert stored(server.database).keys() >= {*(f"before-{n}" for n in range(5)), "recovered"}


def test_what_a_deleted_wal_held_is_saved_by_a_clean_end(server_factory: ServerFactory) -> None:
    server = server_factory(errors_expected=True)
    deliver_some(server)
    wal(server.database).unlink()
    refuses(server)
    server.stop()
    assert stored(server.database).keys() >= {f"before-{n}" for n in range(5)}


@pytest.mark.parametrize("lose", [move_away, replace], ids=["deleted", "replaced"])
def test_the_probe_notices_a_lost_database_without_any_delivery(
    lose: Callable[[Path], None], server_factory: ServerFactory
) -> None:
    server = server_factory(errors_expected=True)
    assert server.get("/health/ready").status == 200
    lose(server.database)
    names = {path.name for path in server.folder.iterdir()}
    assert "app.db was" in unready(server)
    assert {path.name for path in server.folder.iterdir()} == names


# -- another process' lock


@pytest.mark.slow
def test_a_locked_database_is_a_503_until_it_is_let_go(server_factory: ServerFactory) -> None:
    server = server_factory(errors_expected=True)
    deliver_some(server)
    with closing(sqlite3.connect(server.database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        refuses(server)  # whoever asks waits for seconds, and not until it is let go
        assert unready(server) in ("database is locked", "the database does not answer")
        reads_go_on(server, 5)
        assert errors(server) == ["the database cannot be written: database is locked"]
        other.execute("ROLLBACK")
    recovers(server)


def test_a_short_lock_only_delays(server_factory: ServerFactory) -> None:
    server = server_factory()
    with closing(sqlite3.connect(server.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with Senders(server, messages("late"), connections=3) as senders:
            time.sleep(0.4)
            assert not senders.answers
            other.execute("COMMIT")
            senders.wait_for(10)
    assert senders.answers.keys() == {200}


def test_a_database_that_is_locked_at_the_start_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        other.execute("CREATE TABLE theirs (x)")
        ended = run_to_end(
            tmp_path, *SERVE, WEBHOOK_SECRET="s", PORT="0", DATABASE_URL=f"sqlite:///{path}"
        )
    assert (ended.returncode, ended.stderr) == (1, b"")
    assert b"database is locked" in ended.stdout


# -- the process guards its files


def test_a_second_server_on_the_same_database_refuses(server: RunningServer) -> None:
    ended = run_to_end(
        server.folder,
        *SERVE,
        WEBHOOK_SECRET="s",
        PORT="0",
        DATABASE_URL=f"sqlite:///{server.database}",
    )
    assert (ended.returncode, ended.stderr) == (1, b"")
    assert len(ended.stdout.splitlines()) == 1
    assert b"cannot_start" in ended.stdout
    assert b"another server is using this database" in ended.stdout
    deliver_some(server)


def test_our_files_are_our_own(server: RunningServer) -> None:
    deliver_some(server)
    modes = {
        path.name: oct(path.stat().st_mode & 0o777)
        for path in server.folder.iterdir()
        if path.name.startswith("app.db")
    }
    assert modes == dict.fromkeys(["app.db", "app.db-wal", "app.db-shm", "app.db-lock"], oct(0o600))
