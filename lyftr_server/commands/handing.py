"""Hands messages on by webhook: signed, in order for each sender, again until they are taken."""

import contextlib
import hashlib
import json
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from typing import Any
from zlib import crc32

from ..signature import sign_standard
from .address import Address, retry_after, words

TIMEOUT_SECONDS = 30.0
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 3600.0
LANES = 8
# Handed over and not all taken: after a kill so many at most are sent once more.
WINDOW = 256
POLL_SECONDS = 0.2


class _NoMore(Exception):
    """No more is to be sent."""


class _Handed:
    """A message on its way: its place, and whether all is done with it."""

    __slots__ = ("body", "done", "place", "row")

    def __init__(self, place: str, row: dict[str, Any] | None) -> None:
        self.place = place
        self.row = row
        self.done = row is None


class Hands:
    """Posts messages over a few connections at a time; those of one sender share one."""

    def __init__(
        self,
        receiver: Address,
        key: bytes,
        *,
        patience_seconds: float | None,
        note: Callable[[str], None],
    ) -> None:
        self.taken = 0
        self.gone = False  # the target wants no more (410)
        self.failed: str | None = None  # why it is over otherwise
        self.stop = threading.Event()
        self._receiver = receiver
        self._key = key
        self._patience_seconds = patience_seconds
        self._note = note
        self._ledger: deque[_Handed] = deque()
        self._lock = threading.Lock()
        self._room = threading.Semaphore(WINDOW)
        self._lanes: list[queue.SimpleQueue[_Handed]] = [queue.SimpleQueue() for _ in range(LANES)]
        for lane in self._lanes:
            # Daemons: an answer that never comes must not keep a command that was ended.
            threading.Thread(target=self._run, args=(lane,), daemon=True).start()

    def put(self, place: str, row: dict[str, Any] | None) -> None:
        """Hand one over; waits while too many are on their way. Without a row, a place alone."""
        handed = _Handed(place, row)
        while not self._room.acquire(timeout=POLL_SECONDS):
            if self.stop.is_set():
                return
        with self._lock:
            self._ledger.append(handed)
        if row is not None:
            self._lanes[crc32(row["from"].encode()) % LANES].put(handed)

    def advance(self) -> str | None:
        """Return the place that all is taken up to, when that has moved."""
        place = None
        with self._lock:
            while self._ledger and self._ledger[0].done:
                place = self._ledger.popleft().place
                self._room.release()
        return place

    @property
    def waiting(self) -> int:
        return len(self._ledger)

    def _run(self, lane: "queue.SimpleQueue[_Handed]") -> None:
        connection = self._receiver.connection(TIMEOUT_SECONDS)
        try:
            while not self.stop.is_set():
                with contextlib.suppress(queue.Empty):
                    handed = lane.get(timeout=POLL_SECONDS)
                    self._hand(connection, handed)
        except _NoMore:
            pass
        except Exception as error:  # our own mistake must not look like a target that is slow
            self.failed = f"{type(error).__name__}: {error}"
            self.stop.set()
            raise
        finally:
            connection.close()

    def _hand(self, connection: HTTPConnection, handed: _Handed) -> None:
        """Post one until it is taken. _NoMore."""
        began = time.monotonic()
        wait = FIRST_WAIT_SECONDS
        row = handed.row or {}
        troubled = False
        while True:
            status, why, retry_after = self._post(connection, row)
            if 200 <= status < 300:
                if troubled:
                    self._note(f"{row['message_id']!r}: taken")
                with self._lock:
                    self.taken += 1
                    handed.done = True
                return
            if status == 410:
                self.gone = True
                self.stop.set()
                raise _NoMore
            waited = time.monotonic() - began
            if self._patience_seconds is not None and waited >= self._patience_seconds:
                self.failed = f"{row['message_id']!r}: {why}, for {waited:.0f} s"
                self.stop.set()
                raise _NoMore
            if not troubled:
                troubled = True
                self._note(f"{row['message_id']!r}: {why}; trying again")
            # Each a little different: many that failed together do not come back together.
            pause = max(wait * random.uniform(0.5, 1), retry_after)  # noqa: S311 - no secret
            if self.stop.wait(pause):
                raise _NoMore
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def _post(self, connection: HTTPConnection, row: dict[str, Any]) -> tuple[int, str, float]:
        """Return the status (0: no answer), it in words, and what Retry-After asks for."""
        body = json.dumps(row, ensure_ascii=False).encode()
        webhook_id = id_of(row["message_id"])
        timestamp = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign_standard(self._key, webhook_id, timestamp, body),
        }
        try:
            connection.request("POST", self._receiver.path, body, headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, HTTPException) as error:
            connection.close()
            return 0, words(error), 0.0
        said = f"{answer.status} {answer.reason}".strip()
        return answer.status, said, retry_after(answer, LONGEST_RETRY_AFTER_SECONDS)


def id_of(message_id: str) -> str:
    """Return the webhook-id of a message: the same each time, and fit for a header."""
    return f"msg_{hashlib.sha256(message_id.encode()).hexdigest()[:40]}"
