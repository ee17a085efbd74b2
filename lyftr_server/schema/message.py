"""The body of a delivery: a message, field by field."""

import re
from contextlib import suppress
from datetime import datetime
from typing import Any

import voluptuous as vol

from ..records import Message
from .faults import Broken, Fault, Invalid, described, validate
from .strict_json import parse_json, refuse_unstorable

MAX_MESSAGE_ID = 256
MAX_TEXT = 4096

# fullmatch with explicit digits: `$` accepts a trailing newline, `\d` other scripts' digits.
_MSISDN = re.compile(r"\+[0-9]{1,32}")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")


# -- one function for each field: voluptuous' own All(), Match() and Length() chains take twice the
# time, and accept what the contract does not. `json_schema` is what the API page says of it.


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise Broken("must be a string", "string_type")
    return value


@described(
    type="string",
    minLength=1,
    maxLength=MAX_MESSAGE_ID,
    description="The sender's id of the message; one row is stored for each.",
)
def _message_id(value: Any) -> str:
    text = _string(value)
    if not text:
        raise Broken("must have at least 1 character", "string_too_short")
    if len(text) > MAX_MESSAGE_ID:
        raise Broken(f"must have at most {MAX_MESSAGE_ID} characters", "string_too_long")
    return text


@described(type="string", pattern=r"^\+[0-9]{1,32}$", description="A telephone number.")
def msisdn(value: Any) -> str:
    text = _string(value)
    if not _MSISDN.fullmatch(text):
        raise Broken("must be '+' and then 1 to 32 digits", "string_pattern_mismatch")
    return text


@described(
    type="string",
    format="date-time",
    pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z$",
    description="An instant in UTC (RFC 3339, with Z), to the nanosecond.",
)
def timestamp(value: Any) -> str:
    text = _string(value)
    if not _TIMESTAMP.fullmatch(text):
        raise Broken("must look like YYYY-MM-DDTHH:MM:SSZ", "string_pattern_mismatch")
    try:
        # From Python 3.14 on the end of a day is a time as well.
        if text[11:13] == "24":
            raise ValueError
        datetime.fromisoformat(text[:19])
    except ValueError:
        raise Broken("must be a date and time that exist", "datetime_invalid") from None
    return text


@described(
    type=["string", "null"],
    maxLength=MAX_TEXT,
    description="The text, at most 4096 code points; absent and null are the same.",
)
def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = _string(value)
    if len(text) > MAX_TEXT:
        raise Broken(f"must have at most {MAX_TEXT} characters", "string_too_long")
    return text


MESSAGE = vol.Schema(
    {
        vol.Required("message_id"): _message_id,
        vol.Required("from"): msisdn,
        vol.Required("to"): msisdn,
        vol.Required("ts"): timestamp,
        vol.Optional("text", default=None): _text,
    },
    extra=vol.REMOVE_EXTRA,
)

_FIELDS = frozenset(str(key) for key in MESSAGE.schema)


def parse_message(body: bytes) -> Message:
    """Return the message in `body` (JSON, RFC 8259, UTF-8 without a BOM), or raise Invalid."""
    payload = parse_json(body)
    if type(payload) is not dict:
        raise Invalid(Fault(("body",), "must be a JSON object", "object_type"))
    if b"\\u" in body:
        refuse_unstorable(payload, _FIELDS)
    with suppress(KeyError, Broken):
        # The schema's own functions, called by name: 3 us where the schema takes 14. It is left to
        # say everything that is wrong.
        return Message(
            _message_id(payload["message_id"]),
            msisdn(payload["from"]),
            msisdn(payload["to"]),
            timestamp(payload["ts"]),
            _text(payload.get("text")),
        )
    fields = validate(MESSAGE, payload, "body")
    return Message(fields["message_id"], fields["from"], fields["to"], fields["ts"], fields["text"])
