"""The real process: ready soon, ends well, and refuses to start on what it must not touch."""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lyftr_server.signature import sign

from .conftest import ServerFactory
from .process import (
    RUN_PY,
    SECRET,
    SERVE,
    START_SECONDS,
    RunningServer,
    ServerSocket,
    as_body,
    ask,
    environment,
    message,
    post_head,
    run_to_end,
    samples,
)

OK = b'{"status": "ok"}'
BODY = as_body(message())
HEAD = post_head(len(BODY), [("X-Signature", sign(SECRET.encode(), BODY))])


# -- start


@pytest.mark.parametrize("command", [RUN_PY, SERVE], ids=["run.py", "serve"])
def test_a_started_server_stores_a_message_and_ends_well(
    server_factory: ServerFactory, command: tuple[str, ...]
) -> None:
    server = server_factory(command=command)
    assert server.deliver(message()).body == OK
    assert server.get("/messages").json()["total"] == 1
    server.stop()
    (first,), last = server.events("listening"), server.log_lines()[-1]
    assert (first["host"], first["port"]) == ("127.0.0.1", server.port)
    assert (last["event"], last["exit_status"]) == ("stopped", 0)


def test_it_is_ready_within_a_second(server_factory: ServerFactory) -> None:
    seconds = []
    for _ in range(3):
        server = server_factory()
        cpu_seconds = used(server.process.pid)
        assert server.get("/health/ready").json() == {"status": "ready"}
        server.stop()
        # On a machine that is busy with something else only its own share can be told.
        busy = os.getloadavg()[0] > (os.cpu_count() or 1)
        seconds.append(cpu_seconds if busy else server.start_seconds)
        if seconds[-1] < 1:
            return
    raise AssertionError(seconds)


def used(pid: int) -> float:
    """Return the processor's time that a process took so far (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_database_is_readable_by_its_owner_only(server_factory: ServerFactory) -> None:
    before = os.umask(0)
    try:
        server = server_factory()
    finally:
        os.umask(before)
    server.deliver(message())
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in server.folder.glob("app.db*")}
    assert files == dict.fromkeys(("app.db", "app.db-wal", "app.db-shm", "app.db-lock"), 0o600)


def test_the_folder_of_a_relative_database_is_made(server_factory: ServerFactory) -> None:
    server = server_factory(DATABASE_URL="sqlite:///data/deep/x.db")
    assert (server.folder / "data" / "deep" / "x.db").is_file()
    assert server.listening["database"] == str(server.folder / "data" / "deep" / "x.db")


def test_a_folder_that_cannot_be_made_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    line = refusal(tmp_path, DATABASE_URL="sqlite:///data/x.db")
    assert "DATABASE_URL" in line["detail"]


def test_secrets_that_can_be_guessed_are_told(server_factory: ServerFactory) -> None:
    right, short = 16 * "s", 15 * "s"
    server = server_factory(secret=right, WEBHOOK_SECRET_PREVIOUS=right, READ_TOKEN=right)
    server.stop()
    assert not server.events("short_secrets")
    server = server_factory(secret=right, WEBHOOK_SECRET_PREVIOUS=short, ADMIN_TOKEN=short)
    server.stop()
    (line,) = server.events("short_secrets")
    assert line["level"] == "WARNING"
    assert line["detail"] == "WEBHOOK_SECRET, ADMIN_TOKEN: under 16 bytes"
    assert short not in server.text()


def test_reads_that_are_open_beyond_loopback_are_told(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    alone = [unshare or "", "--map-root-user", "--net"]  # a network without anybody else
    if unshare is None or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("unshare cannot make a network namespace here")
    for token, told in (({}, ["reads_are_open"]), ({"READ_TOKEN": 16 * "t"}, [])):
        with (tmp_path / "log").open("w+b") as log:
            process = subprocess.Popen(
                [*alone, sys.executable, *RUN_PY],
                env=environment(WEBHOOK_SECRET=16 * "s", HOST="0.0.0.0", PORT="0", **token),
                cwd=tmp_path,
                stdout=log,
            )
            try:
                deadline = time.monotonic() + START_SECONDS
                while b"listening" not in (tmp_path / "log").read_bytes():
                    assert time.monotonic() < deadline
                    assert process.poll() is None
                    time.sleep(0.02)
            finally:
                process.terminate()
                assert process.wait(START_SECONDS) == 0
        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        warnings = [line for line in lines if line["level"] == "WARNING"]
        assert [line["event"] for line in warnings] == told


def test_reads_that_are_open_on_loopback_are_fine(server: RunningServer) -> None:
    assert server.events("reads_are_open") == []


# -- configuration faults


def refusal(folder: Path, *, status: int = 2, **variables: str) -> dict[str, Any]:
    """Start a server that must refuse: one JSON line, nothing else. Return the line."""
    given = {"WEBHOOK_SECRET": SECRET, "PORT": "0", **variables}
    ended = run_to_end(folder, *RUN_PY, **{k: v for k, v in given.items() if v})
    assert (ended.returncode, ended.stderr) == (status, b""), ended
    (line,) = ended.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert found["level"] == "ERROR"
    assert b"Traceback" not in line
    return found


def test_without_a_secret_it_does_not_start(tmp_path: Path) -> None:
    line = refusal(tmp_path, WEBHOOK_SECRET="")
    assert line["event"] == "configuration_invalid"
    assert list(line["faults"]) == ["WEBHOOK_SECRET"]
    assert list(tmp_path.iterdir()) == []


def test_all_faults_of_the_configuration_are_in_one_line(tmp_path: Path) -> None:
    line = refusal(
        tmp_path,
        WEBHOOK_SECRET="",
        PORT="x",
        LOG_LEVEL="loud",
        DATABASE_URL="mysql://x",
        DEDUPE_BY="luck",
        MAX_BODY_BYTES="0",
        QUEUE_LIMIT="0",
        DRAIN_SECONDS="soon",
        READ_TOKEN="a b",
        WEBHOOK_SECRET_FILE="/nowhere/secret",
    )
    assert set(line["faults"]) >= {
        "PORT",
        "LOG_LEVEL",
        "DATABASE_URL",
        "DEDUPE_BY",
        "MAX_BODY_BYTES",
        "QUEUE_LIMIT",
        "DRAIN_SECONDS",
        "READ_TOKEN",
        "WEBHOOK_SECRET_FILE",
    }
    assert "a b" not in str(line["faults"])


def test_env_file_and_secret_file_are_read(server_factory: ServerFactory, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "key").write_bytes(b"filed secret\n")
    (folder / ".env").write_text("WEBHOOK_SECRET_FILE=key\nAPP_NAME=from the file\nENV=file\n")
    server = server_factory(folder, secret="", ENV="environment")
    expected = {"app": "from the file", "env": "environment"}
    assert expected.items() <= server.get("/").json().items()
    server.secret = "filed secret"
    assert server.deliver(message()).status == 200
    assert {(line["app"], line["env"]) for line in server.log_lines()} == {
        ("from the file", "environment")
    }


def test_every_limit_and_switch_reaches_the_server(server_factory: ServerFactory) -> None:
    server = server_factory(
        MAX_BODY_BYTES="500",
        BODY_BUDGET_BYTES="500",
        QUEUE_LIMIT="77",
        DEDUPE_BY="content",
        READ_TOKEN="t0ken",
    )
    assert server.deliver(message("m1")).status == 200
    assert server.deliver(message("m2")).status == 200
    assert server.deliver(as_body(message("m3", text="x")).ljust(500)).status == 200
    assert server.deliver(as_body(message("m4", text="y")).ljust(501)).status == 413
    assert chunked(server, b"x" * 501) == 413
    assert samples(server.get("/metrics").body)["lyftr_queue_limit"] == 77
    assert server.get("/messages").status == 401
    listed = server.get("/messages", Authorization="Bearer t0ken").json()
    assert [row["message_id"] for row in listed["data"]] == ["m1", "m3"]
    results = [line["result"] for line in server.requests("/webhook", at_least=5)]
    assert results == ["created", "duplicate", "created", "too_large", "too_large"]


def chunked(server: RunningServer, body: bytes) -> int:
    """Send a body whose length is not declared; return the answer's status."""
    connection = server.connect()
    try:
        pieces = [body[start : start + 100] for start in range(0, len(body), 100)]
        connection.request("POST", "/webhook", iter(pieces), encode_chunked=True)
        return connection.getresponse().status
    finally:
        connection.close()


def test_both_secrets_are_accepted_during_a_rotation(server_factory: ServerFactory) -> None:
    server = server_factory(secret="new", WEBHOOK_SECRET_PREVIOUS="old")
    assert server.deliver(message("m1")).status == 200
    assert server.deliver(message("m2"), sign(b"old", as_body(message("m2")))).status == 200
    assert server.deliver(message("m3"), sign(b"older", as_body(message("m3")))).status == 401


# -- what must not be touched


def not_a_database(path: Path) -> None:
    path.write_text("my diary, day 1\n" * 100)


def short_file(path: Path) -> None:
    path.write_text("x")


def newer_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE messages (x)")
        db.execute(f"PRAGMA application_id = {0x4C594654}")
        db.execute("PRAGMA user_version = 999")


def foreign_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE messages (x)")
        db.execute("INSERT INTO messages VALUES (1)")
        db.commit()


def foreign_empty_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 3")


@pytest.mark.parametrize(
    "make, words",
    [
        pytest.param(not_a_database, "not a database", id="no database"),
        pytest.param(short_file, "not a database", id="one byte"),
        pytest.param(newer_database, "version 999", id="newer"),
        pytest.param(foreign_database, "another program", id="another program's"),
        pytest.param(foreign_empty_database, "another program", id="another program's, empty"),
    ],
)
def test_a_file_that_is_not_ours_is_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    path = tmp_path / "app.db"
    make(path)
    before = (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
    line = refusal(tmp_path, DATABASE_URL=f"sqlite:///{path}")
    assert line["event"] == "cannot_start"
    assert "DATABASE_URL" in line["detail"]
    assert words in line["detail"]
    assert str(path) in line["detail"]
    assert (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) == before
    assert {each.name for each in tmp_path.iterdir()} <= {"app.db", "app.db-lock"}


def test_a_folder_in_place_of_the_database_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "app.db").mkdir()
    assert "DATABASE_URL" in refusal(tmp_path, DATABASE_URL="sqlite:///app.db")["detail"]


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_an_absolute_folder_is_not_made(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("x")
    line = refusal(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path / folder / 'app.db'}")
    assert "DATABASE_URL" in line["detail"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["loop/app.db", "loop", "a" * 300])
def test_a_path_that_can_lead_nowhere_is_a_fault(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    line = refusal(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path / name}")
    assert "DATABASE_URL" in line["detail"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_writable_is_a_fault(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    line = refusal(tmp_path, DATABASE_URL=f"sqlite:///{folder / 'app.db'}")
    assert "DATABASE_URL" in line["detail"]


def test_a_second_server_on_the_same_database_does_not_start(server: RunningServer) -> None:
    server.deliver(message("m1"))
    while samples(server.get("/metrics").body)["lyftr_search_backlog_messages"]:
        time.sleep(0.05)  # the first server has nothing left to write
    files = [server.database, server.database.with_name("app.db-wal")]
    before = [path.read_bytes() for path in files]
    line = refusal(server.folder, status=1, DATABASE_URL=f"sqlite:///{server.database}")
    assert "another server" in line["detail"]
    assert [path.read_bytes() for path in files] == before
    assert server.deliver(message("m2")).body == OK


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_that_is_taken_is_a_fault(tmp_path: Path, taken_port: int) -> None:
    line = refusal(tmp_path, status=1, PORT=str(taken_port), DATABASE_URL="sqlite:///app.db")
    assert line["event"] == "cannot_start"
    assert "PORT" in line["detail"]
    assert str(taken_port) in line["detail"]


def test_a_host_that_is_not_here_is_a_fault(tmp_path: Path) -> None:
    # 192.0.2.0/24 is for documentation: no machine has it.
    line = refusal(tmp_path, status=1, HOST="192.0.2.1", DATABASE_URL="sqlite:///app.db")
    assert "HOST" in line["detail"]


# -- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_at_once(server_factory: ServerFactory, number: int) -> None:
    server = server_factory(secret=16 * "s")
    idle = server.connect()
    assert ask(idle, "GET", "/health").status == 200
    started = time.monotonic()
    server.terminate(number)
    assert server.wait() == 0
    assert time.monotonic() - started < 8  # less than DRAIN_SECONDS
    idle.close()
    events = [line["event"] for line in server.log_lines() if "event" in line]
    assert events == ["listening", "draining", "stopped"]
    server.check_output()


def test_a_slow_upload_in_flight_finishes(server: RunningServer) -> None:
    with ServerSocket(server.port) as upload:
        upload.send(HEAD + BODY[:10])
        assert server.get("/health").status == 200  # the head has arrived
        server.terminate()
        server.wait_for("draining")
        with pytest.raises(ConnectionRefusedError):
            ServerSocket(server.port)
        upload.send(BODY[10:])
        answer = upload.read_answer("POST")
        assert (answer.status, answer.body) == (200, OK)
        assert answer.headers["Connection"] == "close"
        assert upload.closed()
    assert server.wait() == 0
    server.check_output()
    assert stored(server) == ["m1"]


def test_a_probe_sees_that_a_drain_begins(server_factory: ServerFactory) -> None:
    server = server_factory(DRAIN_DELAY_SECONDS="600")
    server.terminate()
    server.wait_for("draining")
    ready = server.get("/health/ready")  # on a connection of its own
    assert (ready.status, ready.json()["detail"]) == (503, "draining")
    assert server.get("/health/live").status == 200
    late = server.deliver(message())
    assert (late.status, late.headers["Retry-After"]) == (503, "1")
    server.terminate()
    assert server.wait() == 128 + signal.SIGTERM
    server.check_output()


def test_a_drain_begins_after_its_delay(server_factory: ServerFactory) -> None:
    server = server_factory(DRAIN_DELAY_SECONDS="0.3")
    server.terminate()
    assert server.wait() == 0
    server.check_output()


def stored(server: RunningServer) -> list[str]:
    with contextlib.closing(sqlite3.connect(server.database)) as db:
        return [name for (name,) in db.execute("SELECT message_id FROM messages ORDER BY 1")]


def test_what_begins_while_draining_is_turned_away(server: RunningServer) -> None:
    """Idle connections are closed; one that has a request in flight may still ask for more."""
    with ServerSocket(server.port) as first, ServerSocket(server.port) as second:
        # Two requests on each, of which the second is whole only after the signal.
        first.send(HEAD + BODY[:10])
        second.send(b"GET /health/ready HTTP/1.1\r\nHost: loc")
        assert server.get("/health").status == 200
        server.terminate()
        server.wait_for("draining")
        second.send(b"alhost\r\n\r\n")
        ready = second.read_answer()
        assert (ready.status, ready.json()["status"]) == (503, "unavailable")
        assert second.closed()
        later = as_body(message("m2"))
        head = post_head(len(later), [("X-Signature", sign(SECRET.encode(), later))])
        first.send(BODY[10:] + head + later)
        assert first.read_answer("POST").status == 200
        # Its answer, if it has one, is a refusal with 503; else the connection was closed.
        with contextlib.suppress(ConnectionError, OSError):
            rest = first.socket.recv(4096)
            assert rest == b"" or rest.startswith(b"HTTP/1.1 503 ")
    assert server.wait() == 0
    assert stored(server) == ["m1"]


def test_a_drain_is_bounded(server_factory: ServerFactory) -> None:
    server = server_factory(DRAIN_SECONDS="0.3")
    with ServerSocket(server.port) as upload:
        upload.send(HEAD + BODY[:10])
        assert server.get("/health").status == 200
        started = time.monotonic()
        server.terminate()
        assert server.wait() == 0
        assert 0.3 <= time.monotonic() - started < 8  # less than DRAIN_SECONDS by default
    (line,) = server.events("drain_timed_out")
    assert line["level"] == "WARNING"
    (aborted,) = server.requests("/webhook")
    assert (aborted["status"], aborted["result"]) == (499, "aborted")
    assert stored(server) == []
    server.check_output()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(server: RunningServer, number: int) -> None:
    with ServerSocket(server.port) as upload:
        upload.send(HEAD + BODY[:10])
        assert server.get("/health").status == 200
        server.terminate()
        server.wait_for("draining")
        started = time.monotonic()
        server.terminate(number)
        assert server.wait() == 128 + number
        assert time.monotonic() - started < 8  # less than DRAIN_SECONDS
    server.check_output()


def test_a_kill_loses_no_acknowledged_message(server_factory: ServerFactory) -> None:
    first = server_factory()
    for n in range(20):
        assert first.deliver(message(f"m{n:02}")).body == OK
    first.kill()
    again = server_factory(first.folder)
    assert again.get("/messages").json()["total"] == 20
    assert again.deliver(message("m00")).body == OK
    assert again.requests("/webhook", at_least=1)[-1]["result"] == "duplicate"


def test_a_clean_end_leaves_one_file_of_data(server: RunningServer) -> None:
    server.deliver(message())
    server.stop()
    assert {path.name for path in server.folder.glob("app.db*")} == {"app.db", "app.db-lock"}


def test_a_client_that_leaves_in_the_middle_is_counted_as_aborted(server: RunningServer) -> None:
    with ServerSocket(server.port) as upload:
        upload.send(HEAD + BODY[:10])
        assert server.get("/health").status == 200
    (line,) = server.requests("/webhook", at_least=1)
    assert (line["status"], line["result"], line["dup"]) == (499, "aborted", False)
    metrics = server.get("/metrics").body.decode()
    assert 'webhook_requests_total{result="aborted"} 1.0' in metrics
    assert 'http_requests_total{method="POST",path="/webhook",status="499"} 1.0' in metrics


# -- systemd


@pytest.mark.parametrize("abstract", [False, True], ids=["a path", "an abstract name"])
def test_systemd_is_told(server_factory: ServerFactory, tmp_path: Path, abstract: bool) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        name = f"@lyftr-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
        systemd.bind("\0" + name[1:] if abstract else name)
        systemd.settimeout(10)
        server = server_factory(NOTIFY_SOCKET=name, WATCHDOG_USEC="100000")
        heard = [systemd.recv(100) for _ in range(4)]
        assert (heard.count(b"READY=1"), heard.count(b"WATCHDOG=1")) == (1, 3)
        server.stop()
        systemd.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                heard.append(systemd.recv(100))
        assert b"STOPPING=1" in heard


def test_a_systemd_that_is_gone_is_no_reason_to_fail(server_factory: ServerFactory) -> None:
    server = server_factory(NOTIFY_SOCKET="/nowhere/notify")
    assert server.get("/health").status == 200
    assert any("systemd" in line.get("message", "") for line in server.log_lines())


def test_a_systemd_that_does_not_read_holds_nothing_up(
    server_factory: ServerFactory, tmp_path: Path
) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
    ):
        systemd.bind(str(tmp_path / "notify"))
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"full", str(tmp_path / "notify"))
        server = server_factory(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="100000")
        assert server.deliver(message()).status == 200
        # It is told as soon as it reads again.
        systemd.settimeout(10)
        while systemd.recv(100) != b"READY=1":
            pass
        server.stop()


def test_without_a_descriptor_left_systemd_is_told_and_a_drain_ends_well(
    server_factory: ServerFactory, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        server = server_factory(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="100000")
        assert server.deliver(message()).status == 200
        used_now = len(os.listdir(f"/proc/{server.process.pid}/fd"))
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (used_now, used_now))
        before = len(server.log_lines())
        for _ in range(20):  # more than what waited already
            systemd.recv(100)
        server.stop()
        words = []
        systemd.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                words.append(systemd.recv(100))
        assert b"STOPPING=1" in words
        assert all(line["level"] == "INFO" for line in server.log_lines()[before:])


# -- what no person should see as a traceback


@pytest.mark.parametrize(
    "name, value",
    [
        ("DATABASE_URL", "sqlite:////"),
        ("DATABASE_URL", "sqlite:////tmp/"),
        ("DATABASE_URL", "sqlite:////nowhere/\udcff.db"),
        ("APP_NAME", "a\udcff"),
        ("ENV", "\udcff"),
        ("HOST", "a" * 64),
        ("HOST", "\udcff"),
        ("PUBLIC_URL", "https://\udcff"),
        ("WHATSAPP_VERIFY_TOKEN", "\udcff"),
    ],
)
def test_what_cannot_be_used_is_a_fault_that_names_its_variable(
    tmp_path: Path, name: str, value: str
) -> None:
    line = refusal(tmp_path, **{name: value, "PORT": "x"})
    assert set(line["faults"]) == {name, "PORT"}


def test_all_addresses_are_those_of_both_families(server_factory: ServerFactory) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    server = server_factory(HOST="::")
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, server.port), 10) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_a_mistake_of_our_own_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import sys\n"
        "from lyftr_server import server\n"
        "from lyftr_server.__main__ import main\n"
        "def run(*_):\n"
        "    raise RuntimeError('unheard of')\n"
        "server.run = run\n"
        "sys.exit(main(['serve']))\n"
    )
    ended = run_to_end(tmp_path, str(broken), WEBHOOK_SECRET=SECRET)
    assert (ended.returncode, ended.stderr) == (1, b"")
    (line,) = map(json.loads, ended.stdout.splitlines())
    assert (line["level"], line["event"]) == ("CRITICAL", "failed")
    assert line["detail"] == "RuntimeError: unheard of"


def test_the_command_line_wins_over_the_environment(
    server_factory: ServerFactory, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    options = ("--host", "localhost", "--database", f"sqlite:///{other}", "--port", "0")
    server = server_factory(command=(*SERVE, *options), HOST="127.0.0.1")
    assert server.listening["host"] == "localhost"
    assert server.listening["database"] == str(other)


def test_a_fault_of_the_command_line_is_told_like_the_variables(tmp_path: Path) -> None:
    ended = run_to_end(tmp_path, *SERVE, "--port", "x", WEBHOOK_SECRET=SECRET)
    assert (ended.returncode, ended.stderr) == (2, b"")
    assert set(json.loads(ended.stdout)["faults"]) == {"PORT"}
