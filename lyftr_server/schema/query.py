"""The query of a listing. Its arguments come as the URL has them, decoded once, each a string."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import voluptuous as vol

from .faults import Broken, Fault, Invalid, described, validate
from .message import msisdn, timestamp

MAX_QUERY = 256
MAX_LIMIT = 100
DEFAULT_LIMIT = 50
MAX_OFFSET = 2**63 - 1

_DIGITS = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class MessageQuery:
    """A validated query for a page of messages. `since` has the form of `ts`."""

    limit: int = DEFAULT_LIMIT
    offset: int = 0
    sender: str | None = None
    since: str | None = None
    q: str | None = None
    cursor: str | None = None


def _integer(value: str, least: int, most: int) -> int:
    if not _DIGITS.fullmatch(value) or not least <= int(value) <= most:
        raise Broken(f"must be a whole number from {least} to {most}", "int_range")
    return int(value)


@described(type="integer", minimum=1, maximum=MAX_LIMIT, description="Rows on a page.")
def _limit(value: str) -> int:
    return _integer(value, 1, MAX_LIMIT)


@described(type="integer", minimum=0, maximum=MAX_OFFSET, description="Rows to skip.")
def _offset(value: str) -> int:
    return _integer(value, 0, MAX_OFFSET)


@described(
    type="string",
    pattern=r"^[+ ]?[0-9]{1,32}$",
    description="The sender, exactly; its '+' may be raw, encoded or left out.",
)
def _sender(value: str) -> str | None:
    # A raw '+' in a query string stands for a space.
    return msisdn("+" + value[value[0] in " +" :]) if value else None


@described(type="string", format="date-time", description="Rows at or after this instant.")
def _since(value: str) -> str | None:
    return timestamp(value) if value else None


@described(type="string", maxLength=MAX_QUERY, description="Part of the text, whatever its case.")
def _q(value: str) -> str | None:
    if len(value) > MAX_QUERY:
        raise Broken(f"must have at most {MAX_QUERY} characters", "string_too_long")
    if "\x00" in value:
        raise Broken("must not have U+0000", "string_unicode")
    return value or None


@described(type="string", description="Opaque: next_cursor of an earlier page.")
def _cursor(value: str) -> str | None:
    return value or None


QUERY = vol.Schema(
    {
        vol.Optional("limit", default=str(DEFAULT_LIMIT)): _limit,
        vol.Optional("offset", default="0"): _offset,
        vol.Optional("from", default=""): _sender,
        vol.Optional("from_msisdn", default=""): _sender,
        vol.Optional("since", default=""): _since,
        vol.Optional("q", default=""): _q,
        vol.Optional("cursor", default=""): _cursor,
    },
    extra=vol.REMOVE_EXTRA,
)


def parse_query(arguments: Mapping[str, list[bytes]]) -> MessageQuery:
    """Return the query in a URL's decoded arguments (name -> values), or raise Invalid."""
    given: dict[str, str] = {}
    for key in QUERY.schema:
        values = arguments.get(str(key), [])
        if len(values) > 1:
            raise Invalid(Fault(("query", str(key)), "must not be given twice", "duplicate_key"))
        try:
            given.update((str(key), value.decode("utf-8")) for value in values)
        except UnicodeDecodeError as error:
            raise Invalid(Fault(("query", str(key)), "must be UTF-8", "unicode_error")) from error
    fields = validate(QUERY, given, "query")
    sender, alias = fields["from"], fields["from_msisdn"]
    if sender and alias and sender != alias:
        msg = "must be the same as from, of which it is an alias"
        raise Invalid(Fault(("query", "from_msisdn"), msg, "value_error"))
    if fields["cursor"] and fields["offset"]:
        raise Invalid(Fault(("query", "cursor"), "must not come with an offset", "value_error"))
    return MessageQuery(
        limit=fields["limit"],
        offset=fields["offset"],
        sender=sender or alias,
        since=fields["since"],
        q=fields["q"],
        cursor=fields["cursor"],
    )
