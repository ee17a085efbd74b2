"""The messages: reading them, following them, counting them, and making them go."""

import json

from ..schema import PAGING, TIMELINE_QUERY
from .answers import answer, answer_in, operation, read
from .schemas import EXAMPLE, Json, parameters, ref

_LISTING = """\
Ordered by instant, then by `message_id`; with `order=desc` the newest come first. Filters combine
with AND; an empty one is as if absent.
`from_msisdn` is another name of `from`; both together must be the same. A parameter given twice is
refused.

Follow `next_cursor`, or the `Link` header, to the next page: that costs the same on each.
`offset` pages too, but not together with a cursor.

With `order=stored` rows come as they were stored and `next_cursor` is never null: ask with it
later, and nothing that came meanwhile is missing.
"""


def message_paths() -> Json:
    invalid = ref("responses", "Invalid")
    return {
        "/messages": {
            "get": read(
                "listMessages",
                "A page of messages",
                {
                    "200": answer("A page.", ref("schemas", "Page"), _PAGE, "Link"),
                    "422": invalid,
                },
                description=_LISTING,
                parameters=parameters(),
            )
        },
        "/messages/{message_id}": {
            "get": read(
                "getMessage",
                "One message",
                {
                    "200": answer("The message.", ref("schemas", "MessageDetail"), _DETAIL),
                    "400": ref("responses", "BadRequest"),
                    "404": ref("responses", "NoSuchMessage"),
                    "422": invalid,
                },
                parameters=[_MESSAGE_ID],
            ),
            "delete": _erase("eraseMessage", "Erase a message", _MESSAGE_ID),
        },
        "/people/{number}": {
            "get": _erase("countPerson", "How much an erasure would take", _NUMBER),
            "delete": _erase("erasePerson", "Erase all from, to and about a person", _NUMBER),
        },
        "/messages/{message_id}/payload": {
            "get": read(
                "getPayload",
                "A message's own JSON, byte for byte as its sender sent it",
                {
                    "200": answer("The JSON.", {}, {"id": "wamid.m1", "type": "text"}),
                    "400": ref("responses", "BadRequest"),
                    "404": ref("responses", "NoSuchMessage"),
                    "422": invalid,
                },
                parameters=[_MESSAGE_ID | {"example": "wamid.m1"}],
                description="A message in our own format has none: 404.",
            )
        },
        "/messages.ndjson": {
            "get": read(
                "exportMessages",
                "All messages, one a line",
                {
                    "200": answer_in(
                        "A StoredMessage in each line.",
                        {"application/x-ndjson": ({"type": "string"}, json.dumps(EXAMPLE) + "\n")},
                    ),
                    "422": invalid,
                },
                description="The order and the filters of a listing, without its pages.",
                parameters=parameters(*PAGING),
            )
        },
        "/messages/stream": {"get": _stream()},
        "/stats": {
            "get": read(
                "getStats",
                "Counts over all messages",
                {
                    "200": answer("The counts.", ref("schemas", "Stats"), _STATS),
                    "422": invalid,
                },
            )
        },
        "/stats/timeline": {"get": _timeline()},
    }


_STREAM = """\
Server-sent events: `event: message`, `id` (the place in the order of storing), `data` (a
StoredMessage). Without a place it begins now; `Last-Event-ID`, or `after`, resumes behind an
earlier `id` without a gap or a repeat, however long ago. A comment comes every 15 seconds; the
server ends the stream, with `retry`, when it stops or when the reader falls too far behind: resume.
At most 100 read at a time.
"""


def _stream() -> Json:
    place = {"type": "string", "description": "The `id` of an event of this stream."}
    after = {"name": "after", "in": "query", "schema": place}
    resumed = {"name": "Last-Event-ID", "in": "header", "schema": place}
    filters = [
        each for each in parameters() if each["name"] in ("from", "from_msisdn", "since", "q")
    ]
    row = json.dumps(EXAMPLE, ensure_ascii=False)
    example = f"event: message\nid: 1\ndata: {row}\n\n"
    return read(
        "followMessages",
        "Messages as they are stored",
        {
            "200": answer_in("Events.", {"text/event-stream": ({"type": "string"}, example)}),
            "422": ref("responses", "Invalid"),
        },
        description=_STREAM,
        parameters=[*filters, after, resumed],
    )


_TIMELINE = """\
By instant, in whole hours or days of UTC, the empty ones too; at most 1,000. The first begins at or
before `since`, the last ends at or behind `until`. Without them: the last 48 hours or 90 days up to
the newest message.
"""


def _timeline() -> Json:
    example = {"by": "hour", "data": [{"start": "2025-01-15T10:00:00Z", "count": 3}]}
    return read(
        "getTimeline",
        "Messages by hour or day",
        {
            "200": answer("The counts.", ref("schemas", "Timeline"), example),
            "422": ref("responses", "Invalid"),
        },
        description=_TIMELINE,
        parameters=parameters(query=TIMELINE_QUERY),
    )


_MESSAGE_ID: Json = {
    "name": "message_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
    "example": EXAMPLE["message_id"],
}


def _erase(name: str, summary: str, parameter: Json) -> Json:
    """An operation of the admin's: behind ADMIN_TOKEN, and not there without one."""
    answers = {
        "200": answer("How much went.", ref("schemas", "Erased"), _ERASED),
        "400": ref("responses", "BadRequest"),
        "401": ref("responses", "NoToken"),
        "404": ref("responses", "NoSuchMessage"),
        "422": ref("responses", "Invalid"),
        "503": ref("responses", "NoStorage"),
    }
    security: list[Json] = [{"adminToken": []}]
    return operation("erasing", name, summary, answers, security=security, parameters=[parameter])


_NUMBER: Json = {
    "name": "number",
    "in": "path",
    "required": True,
    "description": "As from and to have it; its plus may be left out.",
    "schema": {"type": "string", "minLength": 1},
    "example": EXAMPLE["from"],
}
_ERASED = {"messages": 12, "events": 31, "refused": 0}
_DETAIL = EXAMPLE | {"source": "native", "received_at": "2025-01-15T10:00:01.250000Z"}
_PAGE = {"data": [EXAMPLE], "total": 1, "limit": 50, "offset": 0, "next_cursor": None}
_STATS = {
    "total_messages": 1,
    "senders_count": 1,
    "messages_per_sender": [{"from": EXAMPLE["from"], "count": 1}],
    "first_message_ts": EXAMPLE["ts"],
    "last_message_ts": EXAMPLE["ts"],
    "recipients_count": 1,
    "messages_last_24h": 1,
    "top_sender": EXAMPLE["from"],
}
