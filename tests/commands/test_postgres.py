"""Commands on a PostgreSQL database: the same as on a file."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ..conftest import ServerFactory
from ..postgres import PostgresServer
from ..process import RunningServer
from .running import SAMPLE, Ended, run

Ask = Callable[[str], Any]


@pytest.fixture
def ask(postgres: PostgresServer, postgres_url: str) -> Ask:
    """Run SQL behind the program's back."""

    def asked(sql: str) -> Any:
        def work(db: Any) -> Awaitable[Any]:
            return db.fetch(sql)  # type: ignore[no-any-return]

        return postgres.ask(work, postgres_url.rpartition("/")[2])

    return asked


@pytest.fixture
def filled(postgres_url: str, server_factory: ServerFactory) -> RunningServer:
    """A server on PostgreSQL with the sample's messages."""
    server = server_factory(DATABASE_URL=postgres_url)
    ended = run(
        server.folder, "send", str(SAMPLE), "--url", server.url, WEBHOOK_SECRET="testsecret"
    )
    assert ended.status == 0, ended
    return server


def export(url: str, folder: Path, *arguments: str) -> Ended:
    return run(folder, "export", *arguments, DATABASE_URL=url)


def test_an_export_is_what_the_server_streams(filled: RunningServer, postgres_url: str) -> None:
    ended = export(postgres_url, filled.folder)
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.stdout.encode() == filled.get("/messages.ndjson").body
    ended = export(postgres_url, filled.folder, "--q", "STRASSE", "--output", "some.ndjson")
    assert (ended.status, ended.stdout) == (0, "")
    rows = [json.loads(line) for line in (filled.folder / "some.ndjson").read_text().splitlines()]
    assert rows == filled.get("/messages?q=STRASSE").json()["data"]
    assert rows


def test_a_database_is_checked(filled: RunningServer, postgres_url: str, ask: Ask) -> None:
    for how in ((), ("--quick",)):
        ended = run(filled.folder, "verify", *how, DATABASE_URL=postgres_url)
        assert (ended.status, ended.stderr) == (0, "")
        assert ended.lines[0].endswith(": 158 messages; everything fits")
        assert ended.lines[1].endswith(": 0 tombstones")
    ask("UPDATE slots SET last = 0")
    ended = run(filled.folder, "verify", DATABASE_URL=postgres_url)
    assert (ended.status, ended.stderr) == (1, "")
    assert "a number that its slot has not given" in ended.stdout
    assert all(line.startswith("postgresql://127.0.0.1:") for line in ended.lines)
    ended = run(filled.folder, "verify", "--repair", DATABASE_URL=postgres_url)
    assert (ended.status, "stop them" in ended.stderr) == (2, True)
    filled.stop()
    ended = run(filled.folder, "verify", "--repair", DATABASE_URL=postgres_url)
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.lines[0].endswith(": 158 messages; everything fits")


def test_a_database_that_is_not_there(tmp_path: Path, postgres: PostgresServer) -> None:
    missing = postgres.url("missing").replace("postgres@", "postgres:s3cret@")
    away = "postgresql://me:s3cret@127.0.0.1:1/d"
    for command in ("export", "verify"):
        for url, status in ((missing, 2), (away, 1)):
            ended = run(tmp_path, command, DATABASE_URL=url)
            assert (ended.status, ended.stdout) == (status, "")
            assert ended.stderr.startswith(f"lyftr-server {command}: ")
            assert "s3cret" not in ended.stderr
            assert len(ended.stderr.splitlines()) == 1
    ended = run(tmp_path, "verify", "--repair", DATABASE_URL=missing)
    assert (ended.status, "missing" in ended.stderr) == (2, True)


def test_a_database_that_no_server_ever_saw(tmp_path: Path, postgres: PostgresServer) -> None:
    with postgres.database("template0") as url:
        for command in ("export", "verify"):
            ended = run(tmp_path, command, DATABASE_URL=url)
            assert (ended.status, "start the server" in ended.stderr) == (2, True)
