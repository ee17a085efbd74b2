"""What each parameter of a query may be, and what it means."""

import re
from datetime import datetime, timedelta
from typing import Any

from .faults import Broken, described
from .message import msisdn, timestamp

MAX_QUERY = 256
MAX_LIMIT = 100
DEFAULT_LIMIT = 50
MAX_OFFSET = 2**63 - 1
MAX_NAME = 256

_DIGITS = re.compile(r"[0-9]{1,20}")
# How WhatsApp calls people whose number it does not tell.
_USER_ID = re.compile(r"[A-Z]{2}\.[A-Za-z0-9._-]{1,128}")
# What stands for a number where there is none: an address with its scheme, or the eleven characters
# of an alphanumeric sender. One letter in a number is a slip.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*:[^\s\x00-\x1f\x7f]{1,240}|[A-Za-z][A-Za-z0-9 ._-]{1,10}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# A raw '+' in a query string stands for a space.
_OFFSET = re.compile(r"(.*T.*?)(\.[0-9]{1,9})?([+ -])([0-9]{2}):([0-9]{2})")
_EPOCH = datetime(1970, 1, 1)


def _integer(value: str, least: int, most: int) -> int:
    if not _DIGITS.fullmatch(value) or not least <= int(value) <= most:
        raise Broken(f"must be a whole number from {least} to {most}", "int_range")
    return int(value)


@described(type="integer", minimum=1, maximum=MAX_LIMIT, description="Rows on a page.")
def limit(value: str) -> int:
    return _integer(value, 1, MAX_LIMIT)


@described(type="integer", minimum=0, maximum=MAX_OFFSET, description="Rows to skip.")
def offset(value: str) -> int:
    return _integer(value, 0, MAX_OFFSET)


@described(
    type="string",
    pattern=r"^([+ ]?[0-9]{1,32}|[A-Z]{2}\.[A-Za-z0-9._-]{1,128})$",
    description="The sender, exactly; its '+' may be raw, encoded or left out.",
)
def sender(value: str) -> str | None:
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
def since(value: str) -> str | None:
    return instant(value) if value else None


@described(**_INSTANT_SCHEMA, description="Rows before this instant, or a date's midnight.")
def until(value: str) -> str | None:
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
def received_since(value: str) -> int | None:
    return _microseconds(value)


@described(**_INSTANT_SCHEMA, description="Received before this instant.")
def received_until(value: str) -> int | None:
    return _microseconds(value)


@described(type="string", maxLength=MAX_QUERY, description="Part of the text, whatever its case.")
def q(value: str) -> str | None:
    if len(value) > MAX_QUERY:
        raise Broken(f"must have at most {MAX_QUERY} characters", "string_too_long")
    return _plain(value)


def _plain(value: str) -> str | None:
    if "\x00" in value:
        raise Broken("must not have U+0000", "string_unicode")
    return value or None


@described(type="string", description="Opaque: next_cursor of an earlier page.")
def cursor(value: str) -> str | None:
    return value or None


def name(description: str) -> Any:
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
def message_order(value: str) -> str:
    if value not in ("asc", "desc", "stored"):
        raise Broken("must be asc, desc or stored", "enum")
    return value


@described(type="string", enum=["hour", "day"], description="What one count spans.")
def by(value: str) -> str:
    if value not in ("hour", "day"):
        raise Broken("must be hour or day", "enum")
    return value


@described(type="string", enum=["asc", "desc"], description="By time, rising or falling.")
def order(value: str) -> bool:
    if value not in ("", "asc", "desc"):
        raise Broken("must be asc or desc", "enum")
    return value == "desc"
