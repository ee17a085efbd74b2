"""The queries of URLs. Their arguments come as the URL has them, decoded once, each a string."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import voluptuous as vol

from .faults import UNKNOWN, Broken, Fault, Invalid, described, validate
from .message import msisdn, timestamp

MAX_QUERY = 256
MAX_LIMIT = 100
DEFAULT_LIMIT = 50
MAX_OFFSET = 2**63 - 1
MAX_NAME = 256

# What a parameter may be called; anything else is not repeated to whoever sent it.
_NAME = re.compile(r"[a-z_]{1,32}")
_DIGITS = re.compile(r"[0-9]{1,20}")
# How WhatsApp calls people whose number it does not tell.
_USER_ID = re.compile(r"[A-Z]{2}\.[A-Za-z0-9._-]{1,128}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# A raw '+' in a query string stands for a space.
_OFFSET = re.compile(r"(.*T.*?)(\.[0-9]{1,9})?([+ -])([0-9]{2}):([0-9]{2})")
_EPOCH = datetime(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class MessageQuery:
    """A validated query for a page of messages. `since` and `until` have the form of `ts`."""

    limit: int = DEFAULT_LIMIT
    offset: int = 0
    sender: str | None = None
    since: str | None = None
    q: str | None = None
    cursor: str | None = None
    until: str | None = None
    order: str = "asc"  # or desc; or stored, and then a cursor is a place in the order of storing


@dataclass(frozen=True, slots=True)
class TimelineQuery:
    """A validated query for counts over time, by "hour" or "day"; times in the form of `ts`."""

    by: str = "hour"
    since: str | None = None
    until: str | None = None


@dataclass(frozen=True, slots=True)
class EventQuery:
    """A validated query for events. Times are microseconds since 1970, by our clock."""

    limit: int = DEFAULT_LIMIT
    source: str | None = None
    kind: str | None = None
    message_id: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    descending: bool = False
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class RefusedQuery:
    """A validated query for refused bodies. Times are microseconds since 1970, by our clock."""

    limit: int = DEFAULT_LIMIT
    source: str | None = None
    result: str | None = None
    since_us: int | None = None
    cursor: str | None = None


def _integer(value: str, least: int, most: int) -> int:
    if not _DIGITS.fullmatch(value) or not least <= int(value) <= most:
        raise Broken(f"must be a whole number from {least} to {most}", "int_range")
    return int(value)


@described(type="integer", minimum=1, maximum=MAX_LIMIT, description="Rows on a page.")
def _limit(value: str) -> int:
    return _integer(value, 1, MAX_LIMIT)


@described(type="integer", minimum=0, maximum=MAX_OFFSET, description="Rows to skip.")
def _offset(value: str) -> int:
    return _integer(value, 0, MAX_OFFSET)


@described(
    type="string",
    pattern=r"^([+ ]?[0-9]{1,32}|[A-Z]{2}\.[A-Za-z0-9._-]{1,128})$",
    description="The sender, exactly; its '+' may be raw, encoded or left out.",
)
def _sender(value: str) -> str | None:
    if not value or _USER_ID.fullmatch(value):
        return value or None
    return msisdn("+" + value.removeprefix("+" if value[0] == "+" else " "))


# A date alone may stand for its midnight, which JSON Schema has no word for.
_INSTANT_SCHEMA = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^[0-9-]{10}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9:]{5})$",
}


@described(**_INSTANT_SCHEMA, description="Rows at or after this instant, or a date's midnight.")
def _since(value: str) -> str | None:
    return instant(value) if value else None


@described(**_INSTANT_SCHEMA, description="Rows before this instant, or a date's midnight.")
def _until(value: str) -> str | None:
    return instant(value) if value else None


def instant(value: str) -> str:
    """Return an instant in the form of `ts`: as it is, a date's midnight, or moved to UTC."""
    if _DATE.fullmatch(value):
        return timestamp(f"{value}T00:00:00Z")
    offset = _OFFSET.fullmatch(value)
    if offset is None:
        return timestamp(value)
    whole, fraction, sign, hours, minutes = offset.groups()
    timestamp(f"{whole}Z")
    if int(hours) > 23 or int(minutes) > 59:
        raise Broken("must have an offset from -23:59 to +23:59", "datetime_invalid")
    away = timedelta(hours=int(hours), minutes=int(minutes))
    try:
        moment = datetime.fromisoformat(whole) + (away if sign == "-" else -away)
    except OverflowError:
        raise Broken("must be in the years 1 to 9999 in UTC", "datetime_invalid") from None
    return f"{moment.isoformat()}{fraction or ''}Z"


def _microseconds(value: str) -> int | None:
    """Return an instant in microseconds since 1970, rounded up: our clock is no finer."""
    if not value:
        return None
    whole, _, fraction = instant(value).removesuffix("Z").partition(".")
    seconds = (datetime.fromisoformat(whole) - _EPOCH) // timedelta(seconds=1)
    return seconds * 1_000_000 - (-int(fraction.ljust(9, "0") or 0) // 1000)


@described(**_INSTANT_SCHEMA, description="Received at or after this instant.")
def _received_since(value: str) -> int | None:
    return _microseconds(value)


@described(**_INSTANT_SCHEMA, description="Received before this instant.")
def _received_until(value: str) -> int | None:
    return _microseconds(value)


@described(type="string", maxLength=MAX_QUERY, description="Part of the text, whatever its case.")
def _q(value: str) -> str | None:
    if len(value) > MAX_QUERY:
        raise Broken(f"must have at most {MAX_QUERY} characters", "string_too_long")
    return _plain(value)


def _plain(value: str) -> str | None:
    if "\x00" in value:
        raise Broken("must not have U+0000", "string_unicode")
    return value or None


@described(type="string", description="Opaque: next_cursor of an earlier page.")
def _cursor(value: str) -> str | None:
    return value or None


def _name(description: str) -> Any:
    @described(type="string", maxLength=MAX_NAME, description=description)
    def validator(value: str) -> str | None:
        if len(value) > MAX_NAME:
            raise Broken(f"must have at most {MAX_NAME} characters", "string_too_long")
        return _plain(value)

    return validator


@described(
    type="string",
    enum=["asc", "desc", "stored"],
    description="By time, rising or falling; or as they were stored.",
)
def _message_order(value: str) -> str:
    if value not in ("asc", "desc", "stored"):
        raise Broken("must be asc, desc or stored", "enum")
    return value


@described(type="string", enum=["hour", "day"], description="What one count spans.")
def _by(value: str) -> str:
    if value not in ("hour", "day"):
        raise Broken("must be hour or day", "enum")
    return value


@described(type="string", enum=["asc", "desc"], description="By time, rising or falling.")
def _order(value: str) -> bool:
    if value not in ("", "asc", "desc"):
        raise Broken("must be asc or desc", "enum")
    return value == "desc"


_PAGING = {
    vol.Optional("limit", default=str(DEFAULT_LIMIT)): _limit,
    vol.Optional("cursor", default=""): _cursor,
}
QUERY = vol.Schema(
    {
        vol.Optional("limit", default=str(DEFAULT_LIMIT)): _limit,
        vol.Optional("offset", default="0"): _offset,
        vol.Optional("from", default=""): _sender,
        vol.Optional("from_msisdn", default=""): _sender,
        vol.Optional("since", default=""): _since,
        vol.Optional("until", default=""): _until,
        vol.Optional("q", default=""): _q,
        vol.Optional("order", default="asc"): _message_order,
        vol.Optional("cursor", default=""): _cursor,
    }
)
EVENT_QUERY = vol.Schema(
    {
        vol.Optional("source", default=""): _name("Who sent it."),
        vol.Optional("kind", default=""): _name("What it is, such as status.delivered."),
        vol.Optional("message_id", default=""): _name("The message that it is about."),
        vol.Optional("since", default=""): _received_since,
        vol.Optional("until", default=""): _received_until,
        vol.Optional("order", default="asc"): _order,
        **_PAGING,
    }
)
REFUSED_QUERY = vol.Schema(
    {
        vol.Optional("source", default=""): _name("Who sent it."),
        vol.Optional("result", default=""): _name("validation_error or conflict."),
        vol.Optional("since", default=""): _received_since,
        **_PAGING,
    }
)
TIMELINE_QUERY = vol.Schema(
    {
        vol.Optional("by", default="hour"): _by,
        vol.Optional("since", default=""): _since,
        vol.Optional("until", default=""): _until,
    }
)
NO_QUERY = vol.Schema({})

Arguments = Mapping[str, list[bytes]]


def parse_query(arguments: Arguments) -> MessageQuery:
    """Return the query in a URL's decoded arguments (name -> values), or raise Invalid."""
    fields = _fields(QUERY, arguments)
    sender, alias = fields["from"], fields.pop("from_msisdn")
    if sender and alias and sender != alias:
        msg = "must be the same as from, of which it is an alias"
        raise Invalid(Fault(("query", "from_msisdn"), msg, "value_error"))
    if fields["cursor"] and fields["offset"]:
        raise Invalid(Fault(("query", "cursor"), "must not come with an offset", "value_error"))
    if fields["offset"] and fields["order"] == "stored":
        msg = "must not come with order=stored: follow next_cursor"
        raise Invalid(Fault(("query", "offset"), msg, "value_error"))
    del fields["from"]
    return MessageQuery(sender=sender or alias, **fields)


def parse_timeline_query(arguments: Arguments) -> TimelineQuery:
    """As parse_query, for counts over time."""
    return TimelineQuery(**_fields(TIMELINE_QUERY, arguments))


def parse_sender(value: str) -> str:
    """Return a person's number (with its plus) or user id, as `from` has it, or raise Invalid."""
    try:
        found = _sender(value)
    except Broken as error:
        raise Invalid(Fault(("path", "number"), error.msg, error.type)) from None
    if found is None:
        raise Invalid(Fault(("path", "number"), "must not be empty", "string_too_short"))
    return found


def parse_event_query(arguments: Arguments) -> EventQuery:
    """As parse_query, for events."""
    fields = _fields(EVENT_QUERY, arguments)
    times = {"since_us": fields.pop("since"), "until_us": fields.pop("until")}
    return EventQuery(descending=fields.pop("order"), **times, **fields)


def parse_refused_query(arguments: Arguments) -> RefusedQuery:
    """As parse_query, for refused bodies."""
    fields = _fields(REFUSED_QUERY, arguments)
    return RefusedQuery(since_us=fields.pop("since"), **fields)


def parse_no_query(arguments: Arguments) -> None:
    """Raise Invalid for any argument, where none would change the answer."""
    _fields(NO_QUERY, arguments)


def query_place(name: str) -> tuple[str, ...]:
    """Return the place of a parameter, whatever it is called."""
    return ("query", name if _NAME.fullmatch(name) else "?")


def _fields(schema: vol.Schema, arguments: Arguments) -> dict[str, Any]:
    """Return the validated arguments. One that we do not know is a fault: it asks for something."""
    given: dict[str, str] = {}
    known = {str(key) for key in schema.schema}
    for name, values in arguments.items():
        place = query_place(name)
        if name not in known:
            names = ", ".join(sorted(known))
            msg = f"is no parameter of this route: {names}" if names else "is no parameter"
            raise Invalid(Fault(place, msg, UNKNOWN))
        if len(values) > 1:
            raise Invalid(Fault(place, "must not be given twice", "duplicate_key"))
        try:
            given[name] = values[0].decode("utf-8")
        except UnicodeDecodeError as error:
            raise Invalid(Fault(place, "must be UTF-8", "unicode_error")) from error
    return validate(schema, given, "query")
