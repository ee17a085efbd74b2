"""lyftr-server healthcheck."""

from pathlib import Path

import pytest

from ..process import RunningServer
from .running import run
from .scripted import Reply, ScriptedServer


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_ready_server_is_healthy(tmp_path: Path, server: RunningServer, host: str) -> None:
    ended = run(tmp_path, "healthcheck", HOST=host, PORT=str(server.port))
    assert ended == (0, '{"status": "ready"}\n', "")


def test_a_server_that_is_not_ready_is_not(tmp_path: Path) -> None:
    body = b'{"status": "unavailable", "detail": "draining"}'
    with ScriptedServer(Reply(503, body)) as scripted:
        ended = run(tmp_path, "healthcheck", PORT=str(scripted.port))
    assert ended == (1, body.decode() + "\n", "")
    assert [(each.method, each.path) for each in scripted.requests] == [("GET", "/health/ready")]


def test_nobody_there_is_not_healthy(tmp_path: Path) -> None:
    with ScriptedServer() as scripted:
        pass
    ended = run(tmp_path, "healthcheck", PORT=str(scripted.port))
    assert (ended.status, ended.stdout) == (1, "")
    assert f"http://127.0.0.1:{scripted.port}/health/ready" in ended.stderr
    assert "refused" in ended.stderr


@pytest.mark.parametrize("patience", ["-1", "0", "nan", "inf", "soon"])
def test_a_patience_that_is_none_is_a_fault(tmp_path: Path, patience: str) -> None:
    ended = run(tmp_path, "healthcheck", "--timeout", patience)
    assert (ended.status, ended.stdout) == (2, "")
    assert "Traceback" not in ended.stderr


def test_a_bad_port_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    ended = run(tmp_path, "healthcheck", PORT="http")
    assert (ended.status, ended.stdout) == (2, "")
    assert "PORT" in ended.stderr
