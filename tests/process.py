"""The real server as a process: start it, feed it, read its log, end it."""

import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyftr_server.config import VARIABLES
from lyftr_server.records import Delivery, Message
from lyftr_server.signature import sign

ROOT = Path(__file__).resolve().parent.parent
RUN_PY = (str(ROOT / "run.py"),)
SERVE = ("-m", "lyftr_server", "serve")
SECRET = "testsecret"
# Patience, on a machine that has much else to do.
START_SECONDS = 60.0
STOP_SECONDS = 60.0


def message(message_id: str = "m1", **fields: Any) -> dict[str, Any]:
    """Return a message that is right but for `fields`; `from_` stands for `from`."""
    fields = {name.removesuffix("_"): value for name, value in fields.items()}
    return {
        "message_id": message_id,
        "from": "+919876543210",
        "to": "+14155550100",
        "ts": "2025-01-15T10:00:00Z",
        "text": "Hello",
    } | fields


def as_body(content: Any) -> bytes:
    """Return bytes as they are, anything else as JSON."""
    return content if isinstance(content, bytes) else json.dumps(content).encode()


def native(message: Message) -> Delivery:
    """Return a message as the store takes it from our own format."""
    return Delivery("native", (message,))


def environment(**variables: str) -> dict[str, str]:
    """Return this process' environment with only these of the server's variables."""
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return inherited | {"PYTHONPATH": str(ROOT)} | variables


@dataclass(frozen=True)
class Answer:
    """What the server said to one request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class RunningServer:
    """A server in a process of its own, ready once constructed; use it in a `with`.

    It runs in `folder`, with its database there, on a port of its own choice (give it PORT when the
    level of the log leaves out the line that names it). Standard output goes to server.log there:
    each line must be a JSON object. Standard error must stay empty, and no ERROR may be logged but
    for bad signatures, unless `errors_expected`; stop() and leaving the `with` hold both.
    """

    def __init__(
        self,
        folder: Path,
        *,
        command: Sequence[str] = RUN_PY,
        secret: str = SECRET,
        errors_expected: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.secret = secret
        self.database = folder / "app.db"
        self.errors_expected = errors_expected
        self.log = folder / "server.log"
        self.errors = folder / "server.err"
        given = {
            "WEBHOOK_SECRET": secret,
            "PORT": "0",
            "DATABASE_URL": f"sqlite:///{self.database}",
            # What tests that write requests themselves call it.
            "ALLOWED_HOSTS": "x, h, 127.0.0.1",
            **(variables or {}),
        }
        # Where the messages are: a file, or a URL of PostgreSQL's.
        url = given["DATABASE_URL"]
        self.place: Path | str = url if url.startswith("postgres") else self.database
        # A restart in the same folder goes on in the same file.
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        started = time.monotonic()
        with self.log.open("ab") as log, self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                env=environment(**given),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=errors,
            )
        self.listening: dict[str, Any] = {}
        self.port = int(given["PORT"])
        try:
            if self.port:
                self._wait_until_it_listens()
            else:
                self.listening = self.wait_for("listening", START_SECONDS)
                self.port = self.listening["port"]
        except BaseException:
            self.kill()
            raise
        self.start_seconds = time.monotonic() - started
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "RunningServer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.kill()  # and let the first failure speak
        elif self.process.poll() is None:
            self.stop()
        else:
            self.check_output()

    # -- its life

    def stop(self, expect: int = 0) -> None:
        """End it with SIGTERM, and hold that it ended well."""
        self.terminate()
        assert self.wait() == expect, self.text()
        self.check_output()

    def terminate(self, number: int = signal.SIGTERM) -> None:
        """Send a signal and return at once."""
        self.process.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Return the exit status; a process that does not end in time is killed, and fails."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """End it with SIGKILL, as a power cut would."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    # -- its output

    def text(self) -> str:
        """Return standard output of this run, and what should not be there: standard error."""
        return self.log.read_bytes()[self._log_start :].decode() + self.errors.read_text()

    def log_lines(self) -> list[dict[str, Any]]:
        """Return every line of the log; each must be a whole JSON object."""
        text = self.log.read_bytes()[self._log_start :].decode("ascii")
        assert not text or text.endswith("\n"), text[-300:]
        return [_object(line) for line in text.splitlines()]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log_lines() if line.get("event") == name]

    def requests(self, path: str | None = None, at_least: int = 0) -> list[dict[str, Any]]:
        """Return the lines of requests, in the order of their ends.

        A line may come a moment after its answer; wait until there are `at_least` so many.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            lines = [line for line in self._whole_lines() if "method" in line]
            found = [line for line in lines if path is None or line["path"] == path]
            if len(found) >= at_least or time.monotonic() > deadline:
                assert len(found) >= at_least, self.text()
                return found
            time.sleep(0.01)

    def wait_for(self, event: str, seconds: float = START_SECONDS) -> dict[str, Any]:
        """Return the first line with this event, as soon as it is there."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            for line in self._whole_lines():
                if line.get("event") == event:
                    return line
            assert not ended, f"it ended with status {self.process.returncode}\n{self.text()}"
            time.sleep(0.01)
        raise AssertionError(f"no event {event} within {seconds} s\n{self.text()}")

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, self.text()
                assert time.monotonic() < deadline, self.text()
                time.sleep(0.02)

    def _whole_lines(self) -> Iterable[dict[str, Any]]:
        whole, _, _ = self.log.read_bytes()[self._log_start :].rpartition(b"\n")
        return [_object(line) for line in whole.decode("ascii").splitlines()]

    def check_output(self) -> None:
        """Hold that standard error is empty and the log has no error that nobody expected."""
        assert self.errors.read_text() == ""
        lines = self.log_lines()
        if not self.errors_expected:
            bad = [line for line in lines if line["level"] in ("ERROR", "CRITICAL")]
            bad = [line for line in bad if line.get("event") != "invalid_signature"]
            assert not bad, bad

    # -- requests, each on a connection of its own

    def connect(self, timeout: float = 30) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        connection = self.connect()
        try:
            return ask(connection, method, target, body, headers)
        finally:
            connection.close()

    def get(self, target: str, **headers: str) -> Answer:
        return self.request(
            "GET", target, None, {name.replace("_", "-"): value for name, value in headers.items()}
        )

    def deliver(self, content: Any, signature: str | None = None) -> Answer:
        """Post a message, or bytes, to /webhook; signed rightly unless told otherwise."""
        body = as_body(content)
        return self.request("POST", "/webhook", body, self.signed(body, signature))

    def signed(self, body: bytes, signature: str | None = None) -> dict[str, str]:
        if signature is None:
            signature = sign(self.secret.encode(), body)
        return {"X-Signature": signature}


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request on a connection that may be kept alive, and read its answer."""
    connection.request(method, target, body, dict(headers or {}))
    answer = connection.getresponse()
    return Answer(answer.status, answer.headers, answer.read())


class ServerSocket:
    """A plain connection, for what an HTTP client would not send."""

    def __init__(self, port: int, timeout: float = 30) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)

    @classmethod
    def to(cls, url: str) -> "ServerSocket":
        return cls(int(url.rpartition(":")[2]))

    def __enter__(self) -> "ServerSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_answer(self, method: str = "GET") -> Answer:
        """Read one answer; the connection stays open."""
        answer = http.client.HTTPResponse(self.socket, method=method)
        try:
            answer.begin()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            answer.close()

    def reset(self) -> None:
        """Break the connection off; a plain close could mean that we still read (half-close)."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def closed(self) -> bool:
        """Wait until the server closes; tell whether it sent nothing more before."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def post(self, body: bytes, headers: Sequence[tuple[str, str | bytes]]) -> Answer:
        """Post to /webhook with exactly these headers."""
        self.send(post_head(len(body), headers) + body)
        return self.read_answer("POST")


def post_head(
    length: int, headers: Sequence[tuple[str, str | bytes]], route: str = "/webhook"
) -> bytes:
    """Return the head of a POST of a delivery."""
    lines = [f"POST {route} HTTP/1.1".encode(), b"Host: localhost"]
    lines.append(b"Content-Length: %d" % length)
    for name, value in headers:
        raw = value if isinstance(value, bytes) else value.encode()
        lines.append(name.encode() + b": " + raw)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def run_to_end(
    folder: Path, *command: str, stdin: bytes = b"", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command of ours that ends by itself; only these of the server's variables are set."""
    return subprocess.run(
        [sys.executable, *command],
        env=environment(**variables),
        cwd=folder,
        input=stdin,
        capture_output=True,
        timeout=START_SECONDS,
        check=False,
    )


def _object(line: str) -> dict[str, Any]:
    value = json.loads(line)
    assert isinstance(value, dict), line
    return value


def samples(exposition: bytes) -> dict[str, float]:
    """Return the samples of a Prometheus text exposition, by name and labels as written."""
    found = {}
    for line in exposition.decode().splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found
