"""Where a number or an id stands in somebody's JSON or form."""

import re

# A number shorter than this may stand anywhere by chance; it counts as a value by itself.
_LONG = 7


def bare(name: str) -> str:
    """Return what every mention of a name has in it: a number's plus is often left out."""
    return name.removeprefix("+")


def mentions(name: str) -> re.Pattern[bytes]:
    """Return a pattern for a number or an id in somebody's JSON or form, its plus left out."""
    escaped = re.escape(bare(name)).encode()
    if len(name) <= _LONG:
        return re.compile(rb'"\+?' + escaped + b'"')
    # In a form the plus is %2B.
    return re.compile(rb"(?:(?<![0-9A-Za-z])|(?<=%2[Bb]))" + escaped + rb"(?![0-9A-Za-z])")
