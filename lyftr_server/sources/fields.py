"""Fields of other people's formats, as our columns can hold them; None for what they cannot."""

import re
import time
from typing import Any

from ..schema import MAX_MESSAGE_ID, MAX_TEXT

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_LAST_SECOND = 253402300799  # of the year 9999


def identity(value: Any) -> str | None:
    """Return an id: 1 to 256 characters, each of which a database can hold."""
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_MESSAGE_ID:
        return None
    return None if _UNSTORABLE.search(value) else value


def storable(text: str) -> str:
    """Return the text with U+FFFD for what no database holds: U+0000 and lone surrogates."""
    return _UNSTORABLE.sub("\ufffd", text)


def words(value: Any) -> str | None:
    """Return a message's text, cut to what the column takes; None when there is none."""
    return storable(value[:MAX_TEXT]) if isinstance(value, str) and value else None


def instant(value: Any) -> str | None:
    """Return seconds since 1970, digits or a number, in the form of `ts`."""
    digits = str(value) if isinstance(value, (str, int)) else ""
    if not re.fullmatch("[0-9]{1,12}", digits) or int(digits) > _LAST_SECOND:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(digits)))


def name_of(value: Any) -> str:
    """Return a name that may be part of an event's kind; `unknown` for anything else."""
    text = value.lower() if isinstance(value, str) else ""
    return text if re.fullmatch("[a-z0-9_.-]{1,64}", text) else "unknown"
