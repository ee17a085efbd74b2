"""A server as a process: start it, watch what it costs, end it."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 60.0
STOP_SECONDS = 30.0


class ServerError(Exception):
    """A server did not start, or ended when it should not have."""


class Server:
    """A running server; its output goes to `server.log` in its directory."""

    def __init__(
        self, command: list[str], environment: dict[str, str], directory: Path, port: int
    ) -> None:
        self.port = port
        self.log = directory / "server.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Server:
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.check_alive()
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/health/live")
                connection.getresponse().read()
                return
            connection.close()
            time.sleep(0.05)
        raise ServerError(f"no answer within {START_SECONDS:.0f} s\n{self._last_words()}")

    def check_alive(self) -> None:
        """Raise ServerError when the process has ended."""
        if (status := self._process.poll()) is not None:
            raise ServerError(f"ended with status {status}\n{self._last_words()}")

    def _last_words(self) -> str:
        return self.log.read_bytes()[-2000:].decode(errors="replace")

    def cpu_seconds(self) -> float:
        """User and system time of the process and its children until now."""
        ticks = 0
        for pid in self._family():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            # proc(5): utime, stime, cutime, cstime are fields 14 to 17, state is 3.
            ticks += sum(map(int, fields[11:15]))
        return ticks / TICKS

    def loop_seconds(self) -> float:
        """User and system time of the first thread alone, which runs the event loop."""
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9

    def peak_rss_mb(self) -> float:
        """The most memory that the process and its children ever had resident, in MB."""
        kilobytes = 0
        for pid in self._family():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    kilobytes += int(line.split()[1])
        return kilobytes / 1024

    def _family(self) -> Iterator[int]:
        waiting = [self._process.pid]
        while waiting:
            pid = waiting.pop()
            yield pid
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                waiting += map(int, children.read_text().split())

    def stop(self) -> None:
        """End the process, with SIGKILL when it does not listen to SIGTERM."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
