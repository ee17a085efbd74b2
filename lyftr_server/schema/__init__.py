"""What a client may send: a message in a body, or a query in a URL. Voluptuous schemas decide."""

from .faults import UNKNOWN, Fault, Invalid
from .message import MAX_MESSAGE_ID, MAX_TEXT, MESSAGE, parse_message
from .parameters import MAX_LIMIT, MAX_OFFSET, MAX_QUERY
from .query import (
    EVENT_QUERY,
    PAGING,
    QUERY,
    REFUSED_QUERY,
    TIMELINE_QUERY,
    EventQuery,
    MessageQuery,
    RefusedQuery,
    TimelineQuery,
    parse_event_query,
    parse_no_query,
    parse_query,
    parse_refused_query,
    parse_sender,
    parse_timeline_query,
    query_place,
)
from .strict_json import parse_json

__all__ = [
    "EVENT_QUERY",
    "MAX_LIMIT",
    "MAX_MESSAGE_ID",
    "MAX_OFFSET",
    "MAX_QUERY",
    "MAX_TEXT",
    "MESSAGE",
    "PAGING",
    "QUERY",
    "REFUSED_QUERY",
    "TIMELINE_QUERY",
    "UNKNOWN",
    "EventQuery",
    "Fault",
    "Invalid",
    "MessageQuery",
    "RefusedQuery",
    "TimelineQuery",
    "parse_event_query",
    "parse_json",
    "parse_message",
    "parse_no_query",
    "parse_query",
    "parse_refused_query",
    "parse_sender",
    "parse_timeline_query",
    "query_place",
]
