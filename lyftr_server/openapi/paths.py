"""Every route: what it takes, and what it answers."""

import json
from typing import Any

from .. import __version__
from ..schema import TIMELINE_QUERY
from ..signature import sign
from .answers import answer, answer_in, operation, status
from .schemas import EXAMPLE, Json, object_of, parameters, ref

# Swagger UI fills its box with the example in this very form, so the signature fits what it sends.
EXAMPLE_BODY = json.dumps(EXAMPLE, indent=2)
EXAMPLE_SECRET = "testsecret"  # noqa: S105 - as in the README's walk; nobody's key

_WEBHOOK = f"""\
A 200 means that the message is on disk. A repeat of a `message_id` is answered 200 and changes
nothing, whatever else it holds.

`X-Signature` is the HMAC-SHA256 of the body, byte for byte as sent, in hex; the key is
WEBHOOK_SECRET. To sign the body below, copy it from the box and run

    WEBHOOK_SECRET=... lyftr-server sign --body '...'

or, for a file, `lyftr-server sign < message.json`. What stands in the box is what is sent: a space
more, and the signature no longer fits. The example's signature is that of the example as it
stands, with the key `{EXAMPLE_SECRET}`.

Refused with 422 too: a key that occurs twice, NaN and Infinity, a BOM, invalid UTF-8; and in any
string, keys and unknown members included, U+0000 and lone surrogates.
"""

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


def paths() -> Json:
    """Return the document's paths."""
    return _message_paths() | _operations_paths() | _documentation_paths()


def _message_paths() -> Json:
    invalid = ref("responses", "Invalid")
    return {
        "/webhook": {"post": _webhook()},
        "/messages": {
            "get": _read(
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
            "get": _read(
                "getMessage",
                "One message",
                {
                    "200": answer("The message.", ref("schemas", "MessageDetail"), _DETAIL),
                    "400": ref("responses", "BadRequest"),
                    "404": ref("responses", "NoSuchMessage"),
                    "422": invalid,
                },
                parameters=[
                    {
                        "name": "message_id",
                        "in": "path",
                        "required": True,
                        "schema": {"type": "string", "minLength": 1},
                        "example": EXAMPLE["message_id"],
                    }
                ],
            )
        },
        "/messages.ndjson": {
            "get": _read(
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
                parameters=parameters("limit", "offset", "cursor"),
            )
        },
        "/messages/stream": {"get": _stream()},
        "/stats": {
            "get": _read(
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
    return _read(
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
    return _read(
        "getTimeline",
        "Messages by hour or day",
        {
            "200": answer("The counts.", ref("schemas", "Timeline"), example),
            "422": ref("responses", "Invalid"),
        },
        description=_TIMELINE,
        parameters=parameters(query=TIMELINE_QUERY),
    )


def _webhook() -> Json:
    signature = {
        "name": "X-Signature",
        "in": "header",
        "required": True,
        "description": "The body's signature, in hex.",
        "schema": {"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"},
        "example": sign(EXAMPLE_SECRET.encode(), EXAMPLE_BODY.encode()),
    }
    content = {"schema": ref("schemas", "Message"), "example": EXAMPLE}
    return operation(
        "messages",
        "receiveMessage",
        "Store a signed message once",
        {
            "200": answer("Stored, now or before.", status("ok"), {"status": "ok"}, "X-Result"),
            "401": ref("responses", "InvalidSignature"),
            "422": ref("responses", "Invalid"),
            "503": ref("responses", "TryAgain"),
        },
        description=_WEBHOOK,
        parameters=[signature],
        requestBody={"required": True, "content": {"application/json": content}},
    )


def _read(name: str, summary: str, answers: dict[str, Json], **more: Any) -> Json:
    """An operation that shows messages: behind READ_TOKEN, and in need of the database."""
    refusals = {"401": ref("responses", "NoToken"), "503": ref("responses", "NoStorage")}
    security: list[Json] = [{}, {"readToken": []}]
    return operation("messages", name, summary, answers | refusals, security=security, **more)


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


def _operations_paths() -> Json:
    def get(name: str, summary: str, answers: dict[str, Json]) -> Json:
        return {"get": operation("operations", name, summary, answers)}

    alive = {"200": answer("The process runs.", status("ok"), {"status": "ok"})}
    ready = {
        "200": answer("A delivery would be stored now.", status("ready"), {"status": "ready"}),
        "503": answer(
            "It would not, and why.",
            object_of({"status": {"const": "unavailable"}, "detail": {"type": "string"}}),
            {"status": "unavailable", "detail": "draining"},
            "Retry-After",
        ),
    }
    exposition: tuple[Json, Any] = ({"type": "string"}, None)
    metrics = answer_in(
        "The exposition; OpenMetrics for those who ask for it by Accept.",
        {"text/plain": exposition, "application/openmetrics-text": exposition},
    )
    about = {name: {"type": "string"} for name in ("app", "env", "version")}
    root = {"app": "lyftr", "env": "production", "version": __version__}
    return {
        "/health": get("getHealth", "As /health/live", alive),
        "/health/live": get("getLiveness", "Whether the process runs", alive),
        "/health/ready": get("getReadiness", "Whether to send deliveries here", ready),
        "/metrics": get("getMetrics", "Metrics for Prometheus", {"200": metrics}),
        "/": get("getRoot", "What this is", {"200": answer("This.", object_of(about), root)}),
    }


def _documentation_paths() -> Json:
    page: tuple[Json, Any] = ({"type": "string"}, None)
    this: Json = {"type": "object", "required": ["openapi", "info", "paths"]}
    return {
        "/docs": {
            "get": operation(
                "documentation",
                "getDocs",
                "This page",
                {"200": answer_in("A page for browsers.", {"text/html": page})},
            )
        },
        "/inspector": {
            "get": operation(
                "documentation",
                "getInspector",
                "A page that shows what arrives",
                {"200": answer_in("A page for browsers.", {"text/html": page})},
            )
        },
        "/openapi.json": {
            "get": operation(
                "documentation",
                "getOpenapi",
                "This document",
                {"200": answer("OpenAPI 3.1.", this, None)},
            )
        },
    }
