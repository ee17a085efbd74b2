"""Opaque page cursors: a place in the listing, signed together with the filters it belongs to."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NamedTuple

from ..records import Message
from ..schema import Fault, Invalid, MessageQuery
from ..signature import matches, sign


class Key(NamedTuple):
    """A place in the listing's order. Text sorts by code points."""

    instant: str
    message_id: str


FIRST = Key("", "")  # before every row
LAST = Key("~", "")  # after every row: an instant begins with a digit


def instant(ts: str) -> str:
    """Return `ts` as text that sorts by time, to the nanosecond: without Z and trailing zeros."""
    ts = ts.rstrip("Z")
    return ts.rstrip("0").rstrip(".") if "." in ts else ts


def key_of(message: Message) -> Key:
    return Key(instant(message.ts), message.message_id)


class Position(NamedTuple):
    """A page's edge: the rows after `key`, or, going backward, the nearest before it."""

    backward: bool
    key: Key


def encode(key: bytes, position: Position, query: MessageQuery) -> str:
    """Return a token for `position`, good for this database and these filters alone."""
    place = [int(position.backward), *position.key]
    payload = urlsafe_b64encode(json.dumps(place, ensure_ascii=False).encode()).decode()
    return f"{payload}.{_signature(key, payload, query)}"


def decode(key: bytes, token: str, query: MessageQuery) -> Position:
    """Return the position in a token that encode() made with the same key and filters."""
    payload, _, signature = token.partition(".")
    if not matches(_signature(key, payload, query), signature):
        raise Invalid(
            Fault(("query", "cursor"), "must come from a page of this listing", "cursor_invalid")
        )
    # Only what encode() signed gets here.
    backward, instant, message_id = json.loads(urlsafe_b64decode(payload))
    return Position(bool(backward), Key(instant, message_id))


def _signature(key: bytes, payload: str, query: MessageQuery) -> str:
    signed = json.dumps([payload, query.sender, query.since, query.q])
    return sign(key, signed.encode())
