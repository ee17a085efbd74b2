"""Who reads the log may stall or go away: no request waits for it, and what is lost is counted."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ..process import ROOT, SECRET, ServerSocket, environment, samples
from .conftest import LAUNCHER

# The answer to this, and its line in the log.
ASKING = b"GET /messages/%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * 150)
LIMIT = 100_000
PIPE = 65536


class PipedServer:
    """A server that writes its log into a pipe; only what is asked for is read from it."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self._errors = folder / "errors"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                env=environment(
                    WEBHOOK_SECRET=SECRET, PORT="0", DATABASE_URL=f"sqlite:///{folder}/app.db"
                ),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
            )
        assert self.process.stdout is not None
        self.pipe = self.process.stdout
        fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, PIPE)
        self._read = b""
        self.port: int = self.wait_for("listening")["port"]

    def lines(self, seconds: float = 60) -> Iterator[dict[str, Any]]:
        """Yield lines as they come, for so long."""
        os.set_blocking(self.pipe.fileno(), False)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            data = self.pipe.read(PIPE)
            if data is None:
                time.sleep(0.005)
                continue
            if not data:
                return
            *whole, self._read = (self._read + data).split(b"\n")
            for line in whole:
                content = json.loads(line)
                assert isinstance(content, dict)
                yield content

    def wait_for(self, event: str) -> dict[str, Any]:
        for line in self.lines():
            if line.get("event") == event:
                return line
        raise AssertionError(f"no event {event}; {self._errors.read_text()}")

    def metrics(self) -> dict[str, float]:
        with ServerSocket(self.port) as connection:
            connection.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return samples(connection.read_answer().body)

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Hold that SIGTERM ends it, with nothing on standard error."""
        self.process.terminate()
        assert self.process.wait(60) == 0
        assert self._errors.read_text() == ""

    def close(self) -> None:
        self.pipe.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture
def piped(tmp_path: Path) -> Iterator[PipedServer]:
    server = PipedServer(tmp_path, (LAUNCHER, "--log-limit", str(LIMIT)))
    yield server
    server.close()


def ask_often(server: PipedServer, count: int) -> None:
    """Send requests that are logged at length; one that waited for the log had no answer."""
    with ServerSocket(server.port) as connection:
        for _ in range(count):
            connection.send(ASKING)
            assert connection.read_answer().status == 404


def test_a_stalled_reader_of_the_log_delays_nobody(piped: PipedServer) -> None:
    count = 2 * (PIPE + LIMIT) // 300
    ask_often(piped, count)
    lost = piped.metrics()["lyftr_log_lines_dropped_total"]
    assert lost > 0
    # Once it flows, all that waited comes, whole, and then what was lost.
    seen = 0
    for line in piped.lines():
        if line.get("event") == "log_lines_dropped":
            break
        seen += line.get("path", "").startswith("/messages/")
    assert line["level"] == "WARNING"
    # The scrape's own line was lost as well.
    assert line["count"] == lost + 1
    assert seen + line["count"] == count + 1
    assert piped.metrics()["lyftr_log_lines_dropped_total"] == line["count"]
    ask_often(piped, 1)
    assert any(line.get("status") == 404 for line in piped.lines(1))
    piped.end()


def test_a_stalled_reader_delays_no_end(piped: PipedServer) -> None:
    ask_often(piped, 2 * (PIPE + LIMIT) // 300)
    piped.end()


def test_a_reader_that_goes_away_ends_nothing(piped: PipedServer) -> None:
    piped.pipe.close()
    ask_often(piped, 50)
    lost = piped.metrics()["lyftr_log_lines_dropped_total"]
    assert lost >= 50
    # Reporting a loss that is lost again must not go on for ever.
    used = piped.cpu_seconds()
    time.sleep(0.5)
    assert piped.cpu_seconds() - used < 0.2
    assert piped.metrics()["lyftr_log_lines_dropped_total"] <= lost + 1
    piped.end()


def test_a_log_on_a_full_disk_ends_nothing(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, str(ROOT / "run.py")],
            env=environment(PORT="0"),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=20,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (2, b"")
