"""What a client may send: a message in a body, or a query in a URL. Voluptuous schemas decide."""

from .faults import Fault, Invalid
from .message import MAX_MESSAGE_ID, MAX_TEXT, MESSAGE, parse_message
from .query import MAX_LIMIT, MAX_OFFSET, MAX_QUERY, QUERY, MessageQuery, parse_query

__all__ = [
    "MAX_LIMIT",
    "MAX_MESSAGE_ID",
    "MAX_OFFSET",
    "MAX_QUERY",
    "MAX_TEXT",
    "MESSAGE",
    "QUERY",
    "Fault",
    "Invalid",
    "MessageQuery",
    "parse_message",
    "parse_query",
]
