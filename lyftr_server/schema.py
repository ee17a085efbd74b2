"""What a client may send: a message in a body, or a query in a URL. Voluptuous schemas decide."""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import voluptuous as vol

V = TypeVar("V", bound=Callable[[Any], Any])

MAX_MESSAGE_ID = 256
MAX_TEXT = 4096
MAX_QUERY = 256
MAX_LIMIT = 100
DEFAULT_LIMIT = 50
MAX_OFFSET = 2**63 - 1

# fullmatch with explicit digits: `$` accepts a trailing newline, `\d` other scripts' digits.
_MSISDN = re.compile(r"\+[0-9]{1,32}")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")
_DIGITS = re.compile(r"[0-9]{1,20}")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Message(NamedTuple):
    """A validated message, in the order of the store's columns."""

    message_id: str
    from_msisdn: str
    to_msisdn: str
    ts: str
    text: str | None


@dataclass(frozen=True, slots=True)
class MessageQuery:
    """A validated query for a page of messages. `since` has the form of `ts`."""

    limit: int = DEFAULT_LIMIT
    offset: int = 0
    sender: str | None = None
    since: str | None = None
    q: str | None = None
    cursor: str | None = None


class Fault(NamedTuple):
    """One thing wrong with the input. It names the place and the rule, never the value."""

    loc: tuple[str | int, ...]
    msg: str
    type: str

    def as_json(self) -> dict[str, Any]:
        return {"loc": list(self.loc), "msg": self.msg, "type": self.type}


class Invalid(Exception):
    """The input breaks a rule; `faults` has every broken one."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(fault.msg for fault in faults))
        self.faults = faults


class _Broken(vol.Invalid):
    """A voluptuous error that knows its machine-readable type."""

    def __init__(self, msg: str, type: str) -> None:
        super().__init__(msg)
        self.type = type


# -- one function for each field: voluptuous' own All(), Match() and Length() chains take twice the
# time, and accept what the contract does not. `json_schema` is what the API page says of it.


def _described(**json_schema: Any) -> Callable[[V], V]:
    def describe(validator: V) -> V:
        validator.json_schema = json_schema  # type: ignore[attr-defined]
        return validator

    return describe


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise _Broken("must be a string", "string_type")
    return value


@_described(
    type="string",
    minLength=1,
    maxLength=MAX_MESSAGE_ID,
    description="The sender's id of the message; one row is stored for each.",
)
def _message_id(value: Any) -> str:
    text = _string(value)
    if not text:
        raise _Broken("must have at least 1 character", "string_too_short")
    if len(text) > MAX_MESSAGE_ID:
        raise _Broken(f"must have at most {MAX_MESSAGE_ID} characters", "string_too_long")
    return text


@_described(type="string", pattern=r"^\+[0-9]{1,32}$", description="A telephone number.")
def _msisdn(value: Any) -> str:
    text = _string(value)
    if not _MSISDN.fullmatch(text):
        raise _Broken("must be '+' and then 1 to 32 digits", "string_pattern_mismatch")
    return text


@_described(
    type="string",
    format="date-time",
    pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z$",
    description="An instant in UTC (RFC 3339, with Z), to the nanosecond.",
)
def _timestamp(value: Any) -> str:
    text = _string(value)
    if not _TIMESTAMP.fullmatch(text):
        raise _Broken("must look like YYYY-MM-DDTHH:MM:SSZ", "string_pattern_mismatch")
    try:
        datetime.fromisoformat(text[:19])
    except ValueError:
        raise _Broken("must be a date and time that exist", "datetime_invalid") from None
    return text


@_described(
    type=["string", "null"],
    maxLength=MAX_TEXT,
    description="The text, at most 4096 code points; absent and null are the same.",
)
def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = _string(value)
    if len(text) > MAX_TEXT:
        raise _Broken(f"must have at most {MAX_TEXT} characters", "string_too_long")
    return text


MESSAGE = vol.Schema(
    {
        vol.Required("message_id"): _message_id,
        vol.Required("from"): _msisdn,
        vol.Required("to"): _msisdn,
        vol.Required("ts"): _timestamp,
        vol.Optional("text", default=None): _text,
    },
    extra=vol.REMOVE_EXTRA,
)


def parse_message(body: bytes) -> Message:
    """Return the message in `body` (JSON, RFC 8259, UTF-8 without a BOM), or raise Invalid."""
    payload = _parse_json(body)
    if type(payload) is not dict:
        raise Invalid(Fault(("body",), "must be a JSON object", "object_type"))
    if b"\\u" in body:
        _refuse_unstorable(payload)
    with suppress(KeyError, _Broken):
        # The schema's own functions, called by name: 3 us where the schema takes 14. It is left to
        # say everything that is wrong.
        return Message(
            _message_id(payload["message_id"]),
            _msisdn(payload["from"]),
            _msisdn(payload["to"]),
            _timestamp(payload["ts"]),
            _text(payload.get("text")),
        )
    fields = _validate(MESSAGE, payload, "body")
    return Message(fields["message_id"], fields["from"], fields["to"], fields["ts"], fields["text"])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Invalid(Fault(("body",), "must not have a key twice", "duplicate_key"))
    return found


def _refuse_constant(_name: str) -> None:
    raise Invalid(Fault(("body",), "must not have NaN or Infinity", "json_invalid"))


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _parse_json(body: bytes) -> Any:
    """Decode strictly. json.loads(bytes) would guess UTF-16 and let doubled keys pass."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(Fault(("body",), "must be UTF-8", "unicode_error")) from error
    try:
        return _DECODER.decode(text)
    # RecursionError: nested too deep. ValueError: no JSON, a BOM, or too long an integer.
    except (ValueError, RecursionError) as error:
        raise Invalid(Fault(("body",), "must be valid JSON", "json_invalid")) from error


def _refuse_unstorable(payload: dict[str, Any]) -> None:
    """Refuse U+0000 and lone surrogates anywhere: only a \\u escape can bring them in."""
    waiting: list[tuple[tuple[str | int, ...], Any]] = [(("body",), payload)]
    while waiting:
        loc, value = waiting.pop()
        if type(value) is str:
            _refuse_characters(value, loc)
        elif type(value) is dict:
            for key, inner in value.items():
                _refuse_characters(key, loc)
                # A key that is not ours is the sender's own text: it stays out of the answer.
                waiting.append(((*loc, key) if key in _FIELDS else loc, inner))
        elif type(value) is list:
            waiting.extend((loc, inner) for inner in value)


_FIELDS = frozenset(str(key) for key in MESSAGE.schema)


def _refuse_characters(value: str, loc: tuple[str | int, ...]) -> None:
    if "\x00" in value:
        raise Invalid(Fault(loc, "must not have U+0000", "string_unicode"))
    if _SURROGATE.search(value):
        raise Invalid(Fault(loc, "must not have a lone surrogate", "string_unicode"))


# -- the query of a listing. Arguments arrive as they stand in the URL, decoded once, each a string.


def _integer(value: str, least: int, most: int) -> int:
    if not _DIGITS.fullmatch(value) or not least <= int(value) <= most:
        raise _Broken(f"must be a whole number from {least} to {most}", "int_range")
    return int(value)


@_described(type="integer", minimum=1, maximum=MAX_LIMIT, description="Rows on a page.")
def _limit(value: str) -> int:
    return _integer(value, 1, MAX_LIMIT)


@_described(type="integer", minimum=0, maximum=MAX_OFFSET, description="Rows to skip.")
def _offset(value: str) -> int:
    return _integer(value, 0, MAX_OFFSET)


@_described(
    type="string",
    pattern=r"^[+ ]?[0-9]{1,32}$",
    description="The sender, exactly; its '+' may be raw, encoded or left out.",
)
def _sender(value: str) -> str | None:
    # A raw '+' in a query string stands for a space.
    return _msisdn("+" + value[value[0] in " +" :]) if value else None


@_described(type="string", format="date-time", description="Rows at or after this instant.")
def _since(value: str) -> str | None:
    return _timestamp(value) if value else None


@_described(type="string", maxLength=MAX_QUERY, description="Part of the text, whatever its case.")
def _q(value: str) -> str | None:
    if len(value) > MAX_QUERY:
        raise _Broken(f"must have at most {MAX_QUERY} characters", "string_too_long")
    if "\x00" in value:
        raise _Broken("must not have U+0000", "string_unicode")
    return value or None


@_described(type="string", description="Opaque: next_cursor of an earlier page.")
def _cursor(value: str) -> str | None:
    return value or None


QUERY = vol.Schema(
    {
        vol.Optional("limit", default=str(DEFAULT_LIMIT)): _limit,
        vol.Optional("offset", default="0"): _offset,
        vol.Optional("from", default=""): _sender,
        vol.Optional("from_msisdn", default=""): _sender,
        vol.Optional("since", default=""): _since,
        vol.Optional("q", default=""): _q,
        vol.Optional("cursor", default=""): _cursor,
    },
    extra=vol.REMOVE_EXTRA,
)


def parse_query(arguments: Mapping[str, list[bytes]]) -> MessageQuery:
    """Return the query in a URL's decoded arguments (name -> values), or raise Invalid."""
    given: dict[str, str] = {}
    for key in QUERY.schema:
        values = arguments.get(str(key), [])
        if len(values) > 1:
            raise Invalid(Fault(("query", str(key)), "must not be given twice", "duplicate_key"))
        try:
            given.update((str(key), value.decode("utf-8")) for value in values)
        except UnicodeDecodeError as error:
            raise Invalid(Fault(("query", str(key)), "must be UTF-8", "unicode_error")) from error
    fields = _validate(QUERY, given, "query")
    sender, alias = fields["from"], fields["from_msisdn"]
    if sender and alias and sender != alias:
        msg = "must be the same as from, of which it is an alias"
        raise Invalid(Fault(("query", "from_msisdn"), msg, "value_error"))
    if fields["cursor"] and fields["offset"]:
        raise Invalid(Fault(("query", "cursor"), "must not come with an offset", "value_error"))
    return MessageQuery(
        limit=fields["limit"],
        offset=fields["offset"],
        sender=sender or alias,
        since=fields["since"],
        q=fields["q"],
        cursor=fields["cursor"],
    )


def _validate(schema: vol.Schema, data: dict[str, Any], where: str) -> dict[str, Any]:
    try:
        return schema(data)  # type: ignore[no-any-return]
    except vol.MultipleInvalid as error:
        # Missing keys come in the order of a set.
        faults = sorted(_fault(each, where) for each in error.errors)
        raise Invalid(*faults) from error


def _fault(error: vol.Invalid, where: str) -> Fault:
    loc = (where, *(str(key) for key in error.path))
    if isinstance(error, _Broken):
        return Fault(loc, error.msg, error.type)
    return Fault(loc, "is required", "missing")
