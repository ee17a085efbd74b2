"""The queries of URLs. Their arguments come as the URL has them, decoded once, each a string."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import voluptuous as vol

from . import parameters
from .faults import UNKNOWN, Broken, Fault, Invalid, validate
from .parameters import DEFAULT_LIMIT

# What a parameter may be called; anything else is not repeated to whoever sent it.
_NAME = re.compile(r"[a-z_]{1,32}")


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


_PAGING = {
    vol.Optional("limit", default=str(DEFAULT_LIMIT)): parameters.limit,
    vol.Optional("cursor", default=""): parameters.cursor,
}
QUERY = vol.Schema(
    {
        vol.Optional("limit", default=str(DEFAULT_LIMIT)): parameters.limit,
        vol.Optional("offset", default="0"): parameters.offset,
        vol.Optional("from", default=""): parameters.sender,
        vol.Optional("from_msisdn", default=""): parameters.sender,
        vol.Optional("since", default=""): parameters.since,
        vol.Optional("until", default=""): parameters.until,
        vol.Optional("q", default=""): parameters.q,
        vol.Optional("order", default="asc"): parameters.message_order,
        vol.Optional("cursor", default=""): parameters.cursor,
    }
)
EVENT_QUERY = vol.Schema(
    {
        vol.Optional("source", default=""): parameters.name("Who sent it."),
        vol.Optional("kind", default=""): parameters.name("What it is, such as status.delivered."),
        vol.Optional("message_id", default=""): parameters.name("The message that it is about."),
        vol.Optional("since", default=""): parameters.received_since,
        vol.Optional("until", default=""): parameters.received_until,
        vol.Optional("order", default="asc"): parameters.order,
        **_PAGING,
    }
)
REFUSED_QUERY = vol.Schema(
    {
        vol.Optional("source", default=""): parameters.name("Who sent it."),
        vol.Optional("result", default=""): parameters.name("validation_error or conflict."),
        vol.Optional("since", default=""): parameters.received_since,
        **_PAGING,
    }
)
TIMELINE_QUERY = vol.Schema(
    {
        vol.Optional("by", default="hour"): parameters.by,
        vol.Optional("since", default=""): parameters.since,
        vol.Optional("until", default=""): parameters.until,
    }
)
NO_QUERY = vol.Schema({})
# What asks for a page, of which an export has none.
PAGING = ("limit", "offset", "cursor")

Arguments = Mapping[str, list[bytes]]


def parse_query(arguments: Arguments, *, paged: bool = True) -> MessageQuery:
    """Return the query in a URL's decoded arguments (name -> values), or raise Invalid.

    Without pages, what asks for one is no parameter.
    """
    fields = _fields(QUERY, arguments, paged=paged)
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
    """Return a person's number (with its plus), id or name, as `from` has it, or raise Invalid.

    A name is what some senders give for a number, such as client:anna or ACME.
    """
    if parameters.NAME.fullmatch(value):
        return value
    try:
        found = parameters.sender(value)
    except Broken as error:
        raise Invalid(Fault(("path", "number"), error.msg, error.type)) from None
    if found is None:
        raise Invalid(Fault(("path", "number"), "must not be empty", "string_too_short"))
    return found


def parse_event_query(arguments: Arguments, *, paged: bool = True) -> EventQuery:
    """As parse_query, for events."""
    fields = _fields(EVENT_QUERY, arguments, paged=paged)
    times = {"since_us": fields.pop("since"), "until_us": fields.pop("until")}
    return EventQuery(descending=fields.pop("order"), **times, **fields)


def parse_refused_query(arguments: Arguments, *, paged: bool = True) -> RefusedQuery:
    """As parse_query, for refused bodies."""
    fields = _fields(REFUSED_QUERY, arguments, paged=paged)
    return RefusedQuery(since_us=fields.pop("since"), **fields)


def parse_no_query(arguments: Arguments) -> None:
    """Raise Invalid for any argument, where none would change the answer."""
    _fields(NO_QUERY, arguments)


def query_place(name: str) -> tuple[str, ...]:
    """Return the place of a parameter, whatever it is called."""
    return ("query", name if _NAME.fullmatch(name) else "?")


def _fields(schema: vol.Schema, arguments: Arguments, *, paged: bool = True) -> dict[str, Any]:
    """Return the validated arguments. One that we do not know is a fault: it asks for something."""
    given: dict[str, str] = {}
    known = {str(key) for key in schema.schema} - set(() if paged else PAGING)
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
