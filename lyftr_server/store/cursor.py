"""Opaque page cursors: a place in the listing, signed together with the filters it belongs to."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, NamedTuple

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
    return seal(key, [int(position.backward), *position.key], _filters(query))


def decode(key: bytes, token: str, query: MessageQuery) -> Position:
    """Return the position in a token that encode() made with the same key and filters."""
    backward, instant, message_id = unseal(key, token, _filters(query))
    return Position(bool(backward), Key(instant, message_id))


def _filters(query: MessageQuery) -> list[Any]:
    found = [query.sender, query.since, query.q]
    # Cursors of before these were known stay good.
    return (
        found
        if query.until is None and query.order == "asc"
        else [*found, query.until, query.order]
    )


def seal(key: bytes, place: Sequence[Any], filters: Sequence[Any]) -> str:
    """Return a token for a place in a listing, signed together with the listing's filters."""
    payload = urlsafe_b64encode(json.dumps(place, ensure_ascii=False).encode()).decode()
    return f"{payload}.{_signature(key, payload, filters)}"


def unseal(key: bytes, token: str, filters: Sequence[Any]) -> list[Any]:
    """Return the place in a token that seal() made with the same key and filters, or Invalid."""
    payload, _, signature = token.partition(".")
    if not matches(_signature(key, payload, filters), signature):
        raise Invalid(
            Fault(("query", "cursor"), "must come from a page of this listing", "cursor_invalid")
        )
    # Only what seal() signed gets here.
    place: list[Any] = json.loads(urlsafe_b64decode(payload))
    return place


def _signature(key: bytes, payload: str, filters: Sequence[Any]) -> str:
    return sign(key, json.dumps([payload, *filters]).encode())
