"""Plain data that the whole house shares. It knows no library and no database."""

import json
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


class Result(StrEnum):
    """What became of a message: stored, there already, or there with other content."""

    CREATED = "created"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
