"""Signed deliveries over a few connections at a time, each sent again until it has an answer."""

import contextlib
import json
import queue
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from http.client import HTTPException
from typing import NamedTuple
from zlib import crc32

from .address import Address, reason, retry_after, words
from .progress import Progress

TIMEOUT_SECONDS = 30.0
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0
LONGEST_RETRY_AFTER_SECONDS = 60.0
WAITING_LINES = 64
POLL_SECONDS = 0.2
END_SECONDS = 10.0

# These alone, and all from 500 on, say that the same may be taken later.
_LATER = {408, 429}
# The headers that prove a body.
Prove = Callable[[bytes], dict[str, str]]
_RESULTS = ("created", "duplicate", "conflict")


class Answer(NamedTuple):
    """What the server said."""

    status: int
    result: str | None
    detail: str
    retry_after: float


class Unreachable(Exception):
    """Nobody answers there."""


class Dropped(Exception):
    """The connection ended before the answer."""


class Tally:
    """What became of the lines."""

    def __init__(self) -> None:
        self.counts = Counter(dict.fromkeys((*_RESULTS, "refused"), 0))
        self.lines = 0
        self.gave_up = False

    def add(self, outcome: str) -> None:
        self.counts[outcome] += 1
        self.lines += 1

    def give_up(self, lines: int) -> None:
        """Count what was read and has no answer. `lines`: how many were read."""
        if lines > self.lines:
            self.counts["unsent"] = lines - self.lines

    @property
    def whole(self) -> bool:
        return not self.counts["refused"] and not self.gave_up

    def words(self) -> str:
        return ", ".join(f"{name} {n}" for name, n in self.counts.items())


class _Line(NamedTuple):
    number: int
    body: bytes


class Deliveries:
    """Sends lines; `tally` has what became of them."""

    def __init__(self, address: Address, prove: Prove, *, retries: int, progress: Progress) -> None:
        self.tally = Tally()
        self._address = address
        self._prove = prove
        self._retries = retries
        self._progress = progress
        self._size: int | None = None
        self._bytes = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def run(self, lines: Iterable[bytes], size: int | None, concurrency: int) -> None:
        """Send each line that is not blank. `size`: of all lines, for the progress."""
        self._size = size
        read = 0
        couriers = [
            _Courier(self._address, self._prove, self._stop, self._send) for _ in range(concurrency)
        ]
        try:
            for number, line in enumerate(lines, 1):
                body = line.removesuffix(b"\n")
                if not body.strip():
                    continue
                read += 1
                if not self.stopped():  # the rest is only counted
                    # The lines of one message stay in their order: they share a courier.
                    courier = couriers[crc32(_message_id(body)) % concurrency]
                    courier.put(_Line(number, body))
            for courier in couriers:
                courier.put(None)
            for courier in couriers:
                courier.join()
        finally:
            self._stop.set()
            for courier in couriers:
                courier.end()
        if self.tally.gave_up:
            self.tally.give_up(read)
        for courier in couriers:
            if courier.error is not None:
                raise courier.error

    def stopped(self) -> bool:
        """Tell whether no more will be sent."""
        return self._stop.is_set()

    def _send(self, courier: "_Courier", line: _Line) -> None:
        """Deliver one line, and count what became of it; runs in a courier's thread."""
        wait = FIRST_WAIT_SECONDS
        for left in range(self._retries, -1, -1):
            pause, wait = wait, min(2 * wait, LONGEST_WAIT_SECONDS)
            try:
                answer = courier.post(line.body)
            except (Unreachable, Dropped) as error:
                if not left and not self._stop.is_set():
                    self._unanswered(line, error)
            else:
                if not _later(answer.status) or not left:
                    self._answered(line, answer)
                    return
                pause = max(pause, answer.retry_after)
            if not left or self._stop.wait(pause):
                return

    def _answered(self, line: _Line, answer: Answer) -> None:
        if answer.status == 401:
            why = f"{answer.status} {answer.detail}"
            self._give_up(line, why, "the server has another key", "refused")
            return
        if answer.status != 200:
            self._refused(line, f"{answer.status} {answer.detail}")
            return
        outcome = answer.result if answer.result in _RESULTS else "accepted"
        with self._lock:
            if outcome == "conflict":
                self._progress.note(
                    f"line {line.number}: conflict: this message_id is stored with other content"
                )
            self._count(line, outcome)

    def _unanswered(self, line: _Line, error: Unreachable | Dropped) -> None:
        if isinstance(error, Unreachable):
            self._give_up(line, f"no answer: {error}", "nobody answers there")
        else:
            self._refused(line, f"no answer: {error}")

    def _refused(self, line: _Line, why: str) -> None:
        with self._lock:
            self._progress.note(f"line {line.number}: {why}")
            self._count(line, "refused")

    def _give_up(self, line: _Line, why: str, reason: str, outcome: str | None = None) -> None:
        """End it all; the line has an `outcome` only when it was answered."""
        with self._lock:
            if self.tally.gave_up:
                return  # one courier has said so
            self._progress.note(f"line {line.number}: {why}")
            self._progress.note(f"giving up: {reason}; the rest is not sent to {self._address}")
            self.tally.gave_up = True
            self._stop.set()
            if outcome is not None:
                self._count(line, outcome)

    def _count(self, line: _Line, outcome: str) -> None:
        self.tally.add(outcome)
        self._bytes += len(line.body) + 1
        share = min(self._bytes / self._size, 1) if self._size else None
        self._progress.update(self.tally.lines, share)


class _Courier:
    """One connection and its thread, with the lines that wait for it."""

    def __init__(
        self,
        address: Address,
        prove: Prove,
        stop: threading.Event,
        send: "Callable[[_Courier, _Line], None]",
    ) -> None:
        self.error: Exception | None = None
        self._path = address.path
        self._prove = prove
        self._stop = stop
        self._send = send
        self._connection = address.connection(TIMEOUT_SECONDS)
        self._lines: queue.Queue[_Line | None] = queue.Queue(WAITING_LINES)
        # A daemon: an answer that never comes must not keep an interrupted command.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, line: _Line | None) -> bool:
        """Queue a line, None after the last one; False when no more will be sent."""
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._lines.put(line, timeout=POLL_SECONDS)
                return True
        return False

    def join(self) -> None:
        self._thread.join()

    def end(self) -> None:
        """Let go of the connection, and of an answer that is still awaited."""
        with contextlib.suppress(OSError, AttributeError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(END_SECONDS)
        self._connection.close()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with contextlib.suppress(queue.Empty):
                    line = self._lines.get(timeout=POLL_SECONDS)
                    if line is None:
                        return
                    self._send(self, line)
        except Exception as error:  # our own mistake; run() raises it
            self.error = error
            self._stop.set()

    def post(self, body: bytes) -> Answer:
        """Post a body, signed, and return the answer. Unreachable, Dropped."""
        try:
            if self._connection.sock is None:
                self._connect()
            # A server that refuses a body may answer and close before it has read all of it.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._connection.request("POST", self._path, body, self._prove(body))
            answer = self._connection.getresponse()
            content = answer.read()
        except TimeoutError as error:
            self._connection.close()
            raise Unreachable(f"nothing within {TIMEOUT_SECONDS:.0f} s") from error
        except (OSError, HTTPException) as error:
            self._connection.close()
            raise Dropped(words(error)) from error
        return Answer(
            answer.status,
            answer.getheader("X-Result"),
            reason(answer, content),
            retry_after(answer, LONGEST_RETRY_AFTER_SECONDS),
        )

    def _connect(self) -> None:
        try:
            self._connection.connect()
        except OSError as error:
            self._connection.close()
            raise Unreachable(words(error)) from error


def _later(status: int) -> bool:
    return status in _LATER or status >= 500


def _message_id(body: bytes) -> bytes:
    """Return what lines of one message have in common: its id, or all of a line without one."""
    try:
        found = json.loads(body)["message_id"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return body
    return found.encode("utf-8", "surrogatepass") if isinstance(found, str) else body
