"""Plain data that the whole house shares. It knows no library and no database."""

import json
import time
from enum import StrEnum
from typing import Any, NamedTuple


class Message(NamedTuple):
    """A validated message, in the order of the store's columns."""

    message_id: str
    from_msisdn: str
    to_msisdn: str
    ts: str
    text: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the message under the names that it came with."""
        return {
            "message_id": self.message_id,
            "from": self.from_msisdn,
            "to": self.to_msisdn,
            "ts": self.ts,
            "text": self.text,
        }

    def as_line(self) -> str:
        """Return the message as a line of NDJSON."""
        return json.dumps(self.as_json(), ensure_ascii=False) + "\n"


class Event(NamedTuple):
    """Something signed that is no message: a status, an edit, an update. Kept raw, and once."""

    kind: str
    message_id: str | None
    body: str  # its own JSON, as it came


def iso(microseconds: int) -> str:
    """Return a time in microseconds since 1970 as RFC 3339 has it, in UTC."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{rest:06}Z", time.gmtime(seconds))


class StoredMessage(NamedTuple):
    """A message with what is known of its coming. Times: microseconds since 1970."""

    message: Message
    source: str
    received_us: int


class StoredEvent(NamedTuple):
    """An event as it was kept; `seq` is its place in the order of storing."""

    seq: int
    received_us: int
    source: str
    kind: str
    message_id: str | None
    body: str


class StoredRefusal(NamedTuple):
    """A refused body as it was kept; ids rise with time."""

    id: int
    received_us: int
    source: str
    result: str
    request_id: str
    message_id: str | None
    detail: str
    body: bytes


class Erased(NamedTuple):
    """How much an erasure took."""

    messages: int = 0
    events: int = 0
    refused: int = 0


# The source whose messages are whole as they are: one a body, and nothing else in it.
NATIVE = "native"


class Delivery(NamedTuple):
    """What one body holds: stored whole, in one transaction, or not at all."""

    source: str
    messages: tuple[Message, ...] = ()
    payloads: tuple[str, ...] = ()  # each message's own JSON as it came; () for our own format
    events: tuple[Event, ...] = ()
    body: bytes = b""  # for the list of what was refused, should a message be a conflict
    request_id: str = ""


class Refusal(NamedTuple):
    """A signed body that cannot be stored as asked; kept, so that nothing signed is lost."""

    source: str
    result: str  # validation_error or conflict
    request_id: str
    message_id: str | None
    detail: str  # the faults, as JSON
    body: bytes


class Unsigned(NamedTuple):
    """What is known of a body that nobody signed: nothing of its content."""

    at: float  # seconds since 1970
    request_id: str
    route: str
    size: int
    reason: str


class Ended(NamedTuple):
    """A request that is over, whoever ended it: what is counted and logged of it."""

    method: str
    route: str  # as in metrics: one of ours, or `unmatched`
    path: str
    status: int
    latency_ms: float
    request_id: str
    client: str  # the peer's address
    source: str | None = None  # who sends to this route; None: it takes no deliveries
    result: str | None = None  # of a delivery
    message_id: str | None = None
    faults: str | None = None  # why it was refused: places and types as JSON, never values


class Result(StrEnum):
    """What became of a message: stored, there already, or there with other content.

    Of a body that could not be stored as asked: it is kept as refused.
    """

    CREATED = "created"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REFUSED = "refused"
