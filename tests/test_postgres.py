"""Servers on PostgreSQL, as their users see them."""

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lyftr_server.app import PROBE_SECONDS
from lyftr_server.signature import sign

from .conftest import ServerFactory
from .faults.clients import Senders
from .postgres import PostgresServer, query
from .process import SECRET, Answer, RunningServer, as_body, ask, environment, message


def refused(folder: Path, *command: str, **variables: str) -> tuple[int, str]:
    """Start a server that must not start; return its exit status and its log."""
    done = subprocess.run(
        [sys.executable, *(command or ("-m", "lyftr_server", "serve"))],
        env=environment(WEBHOOK_SECRET="s", PORT="0", **variables),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_what_one_server_took_is_found_through_another(
    postgres_url: str, server_factory: ServerFactory
) -> None:
    first, second = (server_factory(DATABASE_URL=postgres_url) for _ in range(2))
    assert first.deliver(message("m1")).status == 200
    assert second.deliver(message("m1")).status == 200
    assert second.deliver(message("m2", text="Straße")).status == 200
    for server in (first, second):
        found = server.get("/messages?q=STRASSE").json()
        assert (found["total"], found["data"][0]["message_id"]) == (1, "m2")
        assert server.get("/stats").json()["total_messages"] == 2
        assert server.get("/health/ready").status == 200
    assert "postgresql=" in first.get("/metrics").body.decode()


def test_what_was_acknowledged_survives_a_kill(
    postgres_url: str, server_factory: ServerFactory
) -> None:
    server = server_factory(DATABASE_URL=postgres_url)
    assert server.deliver(message("m1")).status == 200
    server.kill()
    again = server_factory(DATABASE_URL=postgres_url)
    assert again.get("/messages").json()["total"] == 1


@pytest.fixture
def lonely(own_postgres: PostgresServer) -> Iterator[tuple[PostgresServer, str]]:
    with own_postgres.database() as url:
        yield own_postgres, url


def why_unready(server: RunningServer) -> str:
    """Return why a server takes no traffic; it must say so soon."""
    began = time.monotonic()
    answer = server.get("/health/ready")
    assert time.monotonic() - began < PROBE_SECONDS + 3
    assert answer.status == 503
    return str(answer.json()["detail"])


def test_a_database_that_does_not_answer_may_come_back(
    lonely: tuple[PostgresServer, str], tmp_path: Path, server_factory: ServerFactory
) -> None:
    postgres, url = lonely
    server = server_factory(DATABASE_URL=url, errors_expected=True)
    assert server.deliver(message("m1")).status == 200
    postgres.stop(signal.SIGKILL)
    assert server.deliver(message("m2")).status == 503
    assert "no primary takes writes" in why_unready(server)
    assert server.get("/messages").status == 503
    status, log = refused(tmp_path, DATABASE_URL=url, WAIT_SECONDS="0.1")
    assert (status, "waiting for the database" in log) == (1, True)
    # Whoever starts before the database does waits for it.
    with ThreadPoolExecutor() as threads:
        early = threads.submit(server_factory, DATABASE_URL=url)
        postgres.start()
        assert early.result().get("/health/ready").status == 200
    assert server.deliver(message("m2")).status == 200
    assert server.get("/messages").json()["total"] == 2
    assert server.get("/health/ready").status == 200


def test_who_waits_for_a_database_at_the_start_stops_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"postgresql://127.0.0.1:{mute.getsockname()[1]}/d"
        server = subprocess.Popen(
            [sys.executable, "-m", "lyftr_server", "serve"],
            env=environment(WEBHOOK_SECRET="s", DATABASE_URL=url, WAIT_SECONDS="600"),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        )
        with mute.accept()[0]:
            server.terminate()
            log, _ = server.communicate(timeout=60)
    assert (server.returncode, '"stopped"' in log) == (0, True)


def test_readiness_is_told_soon_though_the_database_is_frozen(
    lonely: tuple[PostgresServer, str], server_factory: ServerFactory
) -> None:
    postgres, url = lonely
    server = server_factory(DATABASE_URL=url, errors_expected=True)
    postgres.signal(signal.SIGSTOP)
    assert "does not answer" in why_unready(server)
    postgres.signal(signal.SIGCONT)
    with Senders(server, [message("m1")], connections=1, repeats=0) as sender:
        sender.wait_for(1)
    assert server.get("/health/ready").status == 200


def test_a_standby_takes_no_writes(
    lonely: tuple[PostgresServer, str], server_factory: ServerFactory
) -> None:
    postgres, url = lonely
    server = server_factory(DATABASE_URL=url, errors_expected=True)
    postgres.stop()
    (postgres.data / "standby.signal").touch()
    postgres.start()
    assert server.deliver(message("m1")).status == 503
    assert "it takes no writes: a standby" in why_unready(server)
    postgres.stop()
    (postgres.data / "standby.signal").unlink()
    postgres.start()
    # Whoever asks within a tenth of a second hears what the last one heard.
    while (answer := server.deliver(message("m1"))).status == 503:
        time.sleep(0.02)
    assert answer.status == 200


def test_an_older_server_refuses_a_newer_database(
    tmp_path: Path, postgres_url: str, server_factory: ServerFactory
) -> None:
    server = server_factory(DATABASE_URL=postgres_url, errors_expected=True)
    query(postgres_url, "UPDATE lyftr SET version = version + 1")
    assert "install a later one" in why_unready(server)
    status, log = refused(tmp_path, DATABASE_URL=postgres_url)
    assert (status, "install a later one" in log) == (2, True)


def test_servers_that_start_at_once_on_an_empty_database_share_it(
    postgres: PostgresServer, tmp_path: Path, server_factory: ServerFactory
) -> None:
    with postgres.database("template0") as url, ThreadPoolExecutor() as threads:
        starting = [
            threads.submit(server_factory, tmp_path / str(n), DATABASE_URL=url) for n in range(3)
        ]
        servers = [each.result() for each in starting]
        for n, server in enumerate(servers):
            assert server.deliver(message(f"m{n}")).status == 200
        assert servers[0].get("/messages").json()["total"] == len(servers)
        for server in servers:
            server.stop()


def test_a_database_that_is_missing_needs_a_person(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    url = postgres.url("missing").replace("postgres@", "postgres:s3cret@")
    status, log = refused(tmp_path, DATABASE_URL=url)
    assert status == 2
    assert "missing" in log
    assert "s3cret" not in log


def test_what_its_role_may_not_do_needs_a_person(tmp_path: Path, postgres: PostgresServer) -> None:
    with postgres.database("template0") as url:
        query(url, "CREATE ROLE stranger LOGIN")
        try:
            status, log = refused(tmp_path, DATABASE_URL=url.replace("postgres@", "stranger@"))
        finally:
            query(url, "DROP ROLE stranger")
    assert (status, "permission denied" in log) == (2, True)


@pytest.mark.program
def test_without_the_library_there_is_one_line(tmp_path: Path) -> None:
    start = "import sys; sys.modules['asyncpg'] = None; sys.argv[1:] = ['serve']"
    run = f"{start}; from lyftr_server.__main__ import main; sys.exit(main())"
    status, log = refused(tmp_path, "-c", run, DATABASE_URL="postgresql://h/d")
    assert status == 2
    assert len(log.splitlines()) == 1
    assert "lyftr-server[postgres]" in log


def test_the_url_may_stand_in_a_file(
    tmp_path: Path, postgres_url: str, server_factory: ServerFactory
) -> None:
    (tmp_path / "url").write_text(postgres_url + "\n")
    server = server_factory(DATABASE_URL="", DATABASE_URL_FILE=str(tmp_path / "url"))
    assert server.listening["database"].startswith("postgresql://127.0.0.1:")
    assert server.deliver(message("m1")).status == 200


@contextmanager
def run_postgres(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """As the Makefile starts it, with the wheel's PostgreSQL where it is installed."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.run_postgres", "--folder", folder],
        env=environment(WEBHOOK_SECRET=SECRET, PORT="0"),
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        try:
            yield run
        finally:
            run.terminate()
            status = run.wait(60)
    assert status == 0


@pytest.mark.program
def test_make_run_postgres_serves_one_database_twice(make_folder: Path) -> None:
    with run_postgres(make_folder) as run:
        assert run.stdout is not None
        ports: list[int] = []
        while len(ports) < 2:
            line = run.stdout.readline()
            assert line, "it has ended"
            if '"listening"' in line:
                ports.append(json.loads(line)["port"])
        body = as_body(message("m1"))
        signature = sign(SECRET.encode(), body)
        assert fetch(ports[0], "POST", "/webhook", body, {"X-Signature": signature}).status == 200
        found = fetch(ports[1], "GET", "/messages").json()
        assert found["data"] == [message("m1")]


@pytest.mark.program
def test_make_run_postgres_ends_before_anyone_serves(make_folder: Path) -> None:
    with run_postgres(make_folder) as run:
        while not (make_folder / "data" / "PG_VERSION").exists():
            assert run.poll() is None
            time.sleep(0.02)


def fetch(port: int, *request: Any) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        return ask(connection, *request)
    finally:
        connection.close()


@pytest.fixture
def make_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user reaches; pytest's own are closed to it."""
    folder = Path(tempfile.mkdtemp(prefix="lyftr-run-postgres-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
