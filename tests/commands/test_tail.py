"""lyftr-server tail: NDJSON in a pipe, a line a message on a terminal, on over restarts."""

import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..conftest import ServerFactory
from ..process import RunningServer, environment, message
from .running import DEADLINE_SECONDS, PROGRAM, Terminal, run


class Tail:
    """A tail in pipes."""

    def __init__(self, folder: Path, url: str, *options: str, **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *PROGRAM, "tail", "--url", url, *options],
            env=environment(**variables),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def row(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], DEADLINE_SECONDS)
        assert readable, "nothing came"
        row = json.loads(self.process.stdout.readline())
        assert isinstance(row, dict)
        return row

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, errors.decode()


@pytest.fixture
def tails(tmp_path: Path) -> Iterator[Any]:
    started: list[Tail] = []

    def start(server: RunningServer, *options: str, **variables: str) -> Tail:
        tail = Tail(tmp_path, server.url, *options, **variables)
        started.append(tail)
        wait_for_reader(server, len(started))
        return tail

    yield start
    for tail in started:
        tail.process.kill()
        tail.process.communicate()


def wait_for_reader(server: RunningServer, n: int = 1) -> None:
    """Wait until so many follow; a stream is a request that is being served."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    wanted = f"lyftr_requests_in_flight {n + 1}.0\n".encode()  # and the scrape
    while wanted not in server.get("/metrics").body:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_line_of_a_pipe_is_a_message(server: RunningServer, tails: Any) -> None:
    tail = tails(server)
    server.deliver(message("m1") | {"text": 'é "quoted"\nline'})
    assert tail.row() == message("m1") | {"text": 'é "quoted"\nline'}
    server.deliver(message("m2"))
    assert tail.row()["message_id"] == "m2"
    assert tail.end() == (130, "")


def test_filters_and_token_are_sent_along(server_factory: ServerFactory, tails: Any) -> None:
    server = server_factory(READ_TOKEN="let-me-read")
    tail = tails(server, "--from", "+911", "--q", "ß", READ_TOKEN="let-me-read")
    server.deliver(message("m1") | {"from": "+911"})
    server.deliver(message("m2") | {"from": "+922", "text": "strasse"})
    server.deliver(message("m3") | {"from": "+911", "text": "STRASSE"})
    assert tail.row()["message_id"] == "m3"


def test_it_begins_where_it_is_told(server: RunningServer, tails: Any) -> None:
    server.deliver(message("m1"))
    server.deliver(message("m2"))
    tail = tails(server, "--after", "0")
    assert [tail.row()["message_id"] for _ in range(2)] == ["m1", "m2"]


def test_over_a_restart_nothing_is_missed(
    server_factory: ServerFactory, tails: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "server"
    first = server_factory(folder)
    tail = tails(first)
    first.deliver(message("m1"))
    assert tail.row()["message_id"] == "m1"
    first.kill()
    with_port = server_factory(folder, PORT=str(first.port))
    with_port.deliver(message("m2"))
    assert tail.row()["message_id"] == "m2"
    with_port.stop()
    again = server_factory(folder, PORT=str(first.port))
    again.deliver(message("m3"))
    assert tail.row()["message_id"] == "m3"


@pytest.mark.parametrize(
    "options, variables, status, words",
    [
        pytest.param(["--since", "x"], {}, 1, "since", id="bad filter"),
        pytest.param(["--after", "x"], {}, 1, "after", id="bad place"),
        pytest.param([], {"READ_TOKEN": "wrong"}, 1, "401", id="wrong token"),
        pytest.param(["--url", "ftp://x"], {}, 2, "--url", id="bad address"),
    ],
)
def test_what_cannot_work_ends_it(
    server_factory: ServerFactory,
    tmp_path: Path,
    options: list[str],
    variables: dict[str, str],
    status: int,
    words: str,
) -> None:
    server = server_factory(READ_TOKEN="let-me-read")
    given = {"READ_TOKEN": "let-me-read"} | variables
    ended = run(tmp_path, "tail", "--url", server.url, *options, **given)
    assert (ended.status, ended.stdout) == (status, "")
    assert words in ended.stderr


def test_a_terminal_gets_an_aligned_line_that_nothing_can_steer(
    server: RunningServer, tmp_path: Path
) -> None:
    terminal = Terminal(tmp_path, "tail", "--url", server.url, stdout=True)
    wait_for_reader(server)
    hostile = "red \x1b[31m\x07 \u202eturned\r\nsecond line"
    server.deliver(message("m1") | {"from": "+1", "text": hostile})
    server.deliver(message("m2") | {"from": "+919876543210", "text": "世界" * 40})
    server.deliver(message("m3") | {"from": "+3", "text": None})
    terminal.wait_for("no text")
    ended = terminal.end(signal.SIGINT)
    assert ended.status == 130
    assert "\x1b[36m" in ended.stderr
    plain = without_colours(ended.stderr).replace("\r\n", "\n").splitlines()[:3]
    assert plain[0] == "2025-01-15 10:00:00  +1               red ␛[31m␇ turned  second line"
    assert plain[1].startswith("2025-01-15 10:00:00  +919876543210    世界世界")
    assert plain[1].endswith("…")
    assert plain[2] == "2025-01-15 10:00:00  +3               no text"
    assert all(columns(line) < 80 for line in plain)


def test_no_color_is_heeded(server: RunningServer, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "tail", "--url", server.url, stdout=True, NO_COLOR="1")
    wait_for_reader(server)
    server.deliver(message("m1") | {"text": "the text"})
    terminal.wait_for("the text")
    assert "\x1b" not in terminal.end(signal.SIGINT).stderr


def without_colours(text: str) -> str:
    for code in ("2", "36", "0"):
        text = text.replace(f"\x1b[{code}m", "")
    return text


def columns(line: str) -> int:
    return sum(2 if letter in "世界" else 1 for letter in line)
