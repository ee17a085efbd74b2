"""JSON read in one pass by a reader that knows where it wants to go, and keeps what it skips.

json.loads gives values and forgets their text. Here every value comes with its own text as it was
sent, byte for byte. Each character is decoded once, and only as deep as the caller descends.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..schema import Fault, Invalid

# A batch of Meta's has a thousand updates at most; a body of a MiB could have half a million.
_MAX_PLACES = 20_000
_SPACE = re.compile(r"[ \t\n\r]*")


class Part(NamedTuple):
    """A value, and the JSON that it came as."""

    value: Any
    text: str


def _refuse_constant(_name: str) -> None:
    raise ValueError("NaN and Infinity are no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


class Scanner:
    """A place in a JSON text, which moves forward only.

    `members` and `elements` stand before each value in turn, and whoever iterates over them takes
    it before the next. Everything raises Invalid where the text is no JSON.
    """

    def __init__(self, body: bytes) -> None:
        try:
            self._text = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Invalid(Fault(("body",), "must be UTF-8", "unicode_error")) from error
        self._at = 0
        self._places = 0
        self._skip_space()

    @property
    def at_object(self) -> bool:
        return self._next() == "{"

    @property
    def at_array(self) -> bool:
        return self._next() == "["

    @property
    def at(self) -> int:
        return self._at

    def text_from(self, start: int) -> str:
        """Return what was read since `start`, without the space after it."""
        return self._text[start : self._at].rstrip(" \t\n\r")

    def value(self) -> Part:
        """Take the value that stands here."""
        start = self._at
        try:
            value, self._at = _DECODER.raw_decode(self._text, start)
        # RecursionError: nested too deep. ValueError: no JSON, or too long an integer.
        except (ValueError, RecursionError) as error:
            raise _no_json() from error
        part = Part(value, self._text[start : self._at])
        self._skip_space()
        return part

    def members(self) -> Iterator[str]:
        """Enter the object that stands here; yield each key, standing before its value."""
        for _ in self._inside("{", "}"):
            key = self.value().value if self._next() == '"' else None
            if key is None:
                raise _no_json()
            self._take(":")
            yield key

    def elements(self) -> Iterator[None]:
        """Enter the array that stands here; stand before each element."""
        return self._inside("[", "]")

    def end(self) -> None:
        """Hold that nothing follows."""
        if self._at != len(self._text):
            raise _no_json()

    def _inside(self, opening: str, closing: str) -> Iterator[None]:
        self._take(opening)
        if self._next() != closing:
            self._count()
            yield
            while self._next() == ",":
                self._take(",")
                self._count()
                yield
        self._take(closing)

    def _count(self) -> None:
        self._places += 1
        if self._places > _MAX_PLACES:
            raise Invalid(Fault(("body",), "must have fewer parts", "too_long"))

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, character: str) -> None:
        if self._next() != character:
            raise _no_json()
        self._at += 1
        self._skip_space()

    def _skip_space(self) -> None:
        match = _SPACE.match(self._text, self._at)
        if match is not None:
            self._at = match.end()


def _no_json() -> Invalid:
    return Invalid(Fault(("body",), "must be valid JSON", "json_invalid"))
