"""A reader of server-sent events that may be cut at any time."""

import http.client
import json
from collections.abc import Iterator
from typing import Any, NamedTuple


class Event(NamedTuple):
    """A block of the stream: fields that were absent are ""."""

    event: str
    id: str
    data: str

    def row(self) -> dict[str, Any]:
        content = json.loads(self.data)
        assert isinstance(content, dict)
        return content


class Stream:
    """One connection that reads; `place` is the last id."""

    def __init__(
        self, port: int, query: str = "", place: str = "", *, timeout: float = 20, token: str = ""
    ) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        headers = {"Accept": "text/event-stream"}
        if place:
            headers["Last-Event-ID"] = place
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self.connection.request("GET", f"/messages/stream{query}", headers=headers)
        self.answer = self.connection.getresponse()
        self.place = place
        self.retry = ""

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.answer.close()
        self.connection.close()

    def blocks(self) -> Iterator[Event]:
        """Yield every block until the stream ends or breaks."""
        fields: dict[str, str] = {}
        while True:
            try:
                line = self.answer.readline().decode()
            except (OSError, ValueError, http.client.HTTPException):
                return
            if not line.endswith("\n"):
                return
            line = line[:-1]
            if line:
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
                continue
            self.place = fields.get("id", self.place)
            self.retry = fields.get("retry", self.retry)
            yield Event(*(fields.get(name, "") for name in Event._fields))
            fields = {}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the messages."""
        return (block.row() for block in self.blocks() if block.event == "message")

    def begun(self) -> "Stream":
        """Wait until the stream has begun: all that is stored from now on is on it."""
        assert self.answer.status == 200, self.answer.read()
        next(self.blocks())
        return self
