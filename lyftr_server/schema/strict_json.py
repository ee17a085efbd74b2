"""JSON (RFC 8259) without the leniences of Python's: what two readers could read in two ways."""

import json
import re
from collections.abc import Collection
from typing import Any

from .faults import Fault, Invalid

_SURROGATE = re.compile("[\ud800-\udfff]")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Invalid(Fault(("body",), "must not have a key twice", "duplicate_key"))
    return found


def _refuse_constant(_name: str) -> None:
    raise Invalid(Fault(("body",), "must not have NaN or Infinity", "json_invalid"))


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def parse_json(body: bytes) -> Any:
    """Decode strictly. json.loads(bytes) would guess UTF-16 and let doubled keys pass."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Invalid(Fault(("body",), "must be UTF-8", "unicode_error")) from None
    try:
        return _DECODER.decode(text)
    # RecursionError: nested too deep. ValueError: no JSON, a BOM, or too long an integer.
    except (ValueError, RecursionError):
        raise Invalid(Fault(("body",), "must be valid JSON", "json_invalid")) from None


def refuse_unstorable(payload: dict[str, Any], fields: Collection[str]) -> None:
    """Refuse U+0000 and lone surrogates anywhere: only a \\u escape can bring them in.

    `fields`: the keys that an answer may name.
    """
    waiting: list[tuple[tuple[str | int, ...], Any]] = [(("body",), payload)]
    while waiting:
        loc, value = waiting.pop()
        if type(value) is str:
            _refuse_characters(value, loc)
        elif type(value) is dict:
            for key, inner in value.items():
                _refuse_characters(key, loc)
                # A key that is not ours is the sender's own text: it stays out of the answer.
                waiting.append(((*loc, key) if key in fields else loc, inner))
        elif type(value) is list:
            waiting.extend((loc, inner) for inner in value)


def _refuse_characters(value: str, loc: tuple[str | int, ...]) -> None:
    if "\x00" in value:
        raise Invalid(Fault(loc, "must not have U+0000", "string_unicode"))
    if _SURROGATE.search(value):
        raise Invalid(Fault(loc, "must not have a lone surrogate", "string_unicode"))
