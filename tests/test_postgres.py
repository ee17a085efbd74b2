"""Servers on PostgreSQL, as their users see them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ServerFactory
from .postgres import PostgresServer, find_programs
from .process import environment, message


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


def test_a_database_that_does_not_answer_may_come_back(
    tmp_path: Path, server_factory: ServerFactory
) -> None:
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with PostgresServer(programs) as postgres, postgres.database() as url:
        server = server_factory(DATABASE_URL=url, errors_expected=True)
        assert server.deliver(message("m1")).status == 200
        postgres.stop(signal.SIGKILL)
        assert server.deliver(message("m2")).status == 503
        assert server.get("/health/ready").status == 503
        assert server.get("/messages").status == 503
        status, log = refused(tmp_path, DATABASE_URL=url, WAIT_SECONDS="0.1")
        assert (status, "waiting for the database" in log) == (1, True)
        postgres.start()
        assert server.deliver(message("m2")).status == 200
        assert server.get("/messages").json()["total"] == 2
        assert server.get("/health/ready").status == 200
        server.stop()


def test_a_database_that_is_missing_needs_a_person(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    url = postgres.url("missing").replace("postgres@", "postgres:s3cret@")
    status, log = refused(tmp_path, DATABASE_URL=url)
    assert status == 2
    assert "missing" in log
    assert "s3cret" not in log


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
