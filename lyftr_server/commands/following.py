"""Reads a server's stream of messages, and goes on where it was whenever that breaks."""

import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, NamedTuple
from urllib.parse import urlencode

from . import CommandError
from .address import Address, reason, words

# The server says something every 15 s.
SILENCE_SECONDS = 45.0
FIRST_WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 10.0
BEGINNING = "0"  # the place before every message


class Followed(NamedTuple):
    """A stored message and the place behind it; without a message, only a place."""

    place: str
    row: dict[str, Any] | None


class Follower:
    """Yields what is stored, in that order, each message once, for as long as anybody asks."""

    def __init__(
        self,
        server: Address,
        filters: Mapping[str, str],
        *,
        token: str | None,
        place: str | None = None,
        note: Callable[[str], None],
        stop: threading.Event | None = None,
    ) -> None:
        self.place = place
        self._server = server
        self._filters = {name: value for name, value in filters.items() if value}
        self._headers = {"Accept": "text/event-stream"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._note = note
        self._stop = stop or threading.Event()
        self._troubled = False

    def follow(self) -> Iterator[Followed]:
        """Yield messages until stopped. CommandError."""
        wait = FIRST_WAIT_SECONDS
        while not self._stop.is_set():
            connection = self._server.connection(SILENCE_SECONDS)
            try:
                for followed in self._read(connection):
                    wait = FIRST_WAIT_SECONDS
                    self._recovered()
                    yield followed
                why = "the stream has ended"
            except (OSError, HTTPException) as error:
                why = words(error)
            finally:
                connection.close()
            # A stream that ends well is a server that stops: it may be back in a moment.
            if wait > FIRST_WAIT_SECONDS and not self._troubled:
                self._troubled = True
                self._note(f"{why}; trying again until the server is back")
            self._stop.wait(wait * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def _recovered(self) -> None:
        if self._troubled:
            self._troubled = False
            self._note("the server is back")

    def _read(self, connection: HTTPConnection) -> Iterator[Followed]:
        place = {} if self.place is None else {"after": self.place}
        query = urlencode({**self._filters, **place})
        path = f"{self._server.path}/messages/stream"
        connection.request("GET", f"{path}?{query}" if query else path, headers=self._headers)
        answer = connection.getresponse()
        if answer.status != 200:
            why = f"{answer.status} {reason(answer, answer.read())}"
            if 400 <= answer.status < 500 and answer.status not in (408, 429):
                raise CommandError(why)
            raise HTTPException(why)
        fields: dict[str, str] = {}
        for line in _lines(answer):
            if line:
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
                continue
            if "id" in fields:
                # Only a whole event moves the place: half of one comes again.
                row = json.loads(fields["data"]) if fields.get("event") == "message" else None
                self.place = fields["id"]
                yield Followed(self.place, row)
            fields = {}


def _lines(answer: HTTPResponse) -> Iterator[str]:
    while True:
        line = answer.readline()
        if not line.endswith(b"\n"):
            return
        yield line.rstrip(b"\r\n").decode()
