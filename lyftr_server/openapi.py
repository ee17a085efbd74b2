"""The OpenAPI 3.1 document: what the schemas accept, and what each route answers."""

import json
from functools import cache
from typing import Any

from voluptuous_openapi import UNSUPPORTED, OpenApiVersion, convert

from . import __version__
from .schema import MESSAGE, QUERY
from .signature import sign

Json = dict[str, Any]

EXAMPLE: Json = {
    "message_id": "m1",
    "from": "+919876543210",
    "to": "+14155550100",
    "ts": "2025-01-15T10:00:00Z",
    "text": "Hello",
}
# Swagger UI fills its box with the example in this very form, so the signature fits what it sends.
EXAMPLE_BODY = json.dumps(EXAMPLE, indent=2)
EXAMPLE_SECRET = "testsecret"  # noqa: S105 - as in the README's walk; nobody's key

_ABOUT = """\
Stores each signed message exactly once, and gives it back.

- Every GET answers HEAD too. Another method is answered 405, another path 404.
- Every refusal is JSON: `{"detail": ...}`.
- Every answer has an `X-Request-ID`: the request's own if it sent one of 1 to 128 letters, digits,
  `.`, `_` and `-`, else one of ours.
"""

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
Ordered by instant, then by `message_id`. Filters combine with AND; an empty one is as if absent.
A parameter given twice is refused.

Follow `next_cursor`, or the `Link` header, to the next page: that costs the same on each.
`offset` pages too, but not together with a cursor.
"""

_OTHERWISE = (
    "What HTTP itself refuses, on any route: 400 malformed, 408 too slow, 417 an Expect that is "
    "not 100-continue, 431 headers too large, 501 a transfer coding other than chunked, 505 "
    "another version of HTTP."
)

_PLAIN = "^[^\\u0000]*$"


@cache
def document_bytes() -> bytes:
    """Return the document as JSON. It says the same as long as the program runs."""
    return json.dumps(document(), ensure_ascii=False).encode()


def document() -> Json:
    """Return the OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lyftr-server",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "messages", "description": "Bring messages in, and get them out."},
            {"name": "operations", "description": "What operators and their tools ask."},
            {"name": "documentation", "description": "This page."},
        ],
        "paths": _message_paths() | _operations_paths() | _documentation_paths(),
        "components": {
            "schemas": _schemas(),
            "responses": _refusals(),
            "headers": _HEADERS,
            "securitySchemes": {
                "readToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Needed only when the server runs with READ_TOKEN.",
                }
            },
        },
    }


# -- schemas, from those that validate


def _converted(schema: Any) -> Json:
    found: Json = convert(
        schema, custom_serializer=_serialized, openapi_version=OpenApiVersion.V3_1
    )
    return found


def _serialized(validator: Any) -> Any:
    """Return what a validator says of itself. No string may have U+0000, wherever it stands."""
    described = getattr(validator, "json_schema", None)
    if described is None:
        return UNSUPPORTED
    if "string" in described["type"]:
        return {"pattern": _PLAIN} | described
    return dict(described)


def _schemas() -> Json:
    message = _converted(MESSAGE) | {"examples": [EXAMPLE]}
    fields = {name: dict(field) for name, field in message["properties"].items()}
    del fields["text"]["default"]
    stats = {
        "total_messages": _COUNT,
        "senders_count": _COUNT,
        "messages_per_sender": {
            "type": "array",
            "description": "The ten with most, then by number.",
            "maxItems": 10,
            "items": _object({"from": fields["from"], "count": {"type": "integer", "minimum": 1}}),
        },
        "first_message_ts": _nullable(fields["ts"]),
        "last_message_ts": _nullable(fields["ts"]),
        "recipients_count": _COUNT,
        "messages_last_24h": _COUNT | {"description": "Stored in the last 24 hours."},
        "top_sender": _nullable(fields["from"]),
    }
    page = {
        "data": {"type": "array", "maxItems": 100, "items": _ref("schemas", "StoredMessage")},
        "total": _COUNT | {"description": "All that match, whatever the page."},
        "limit": {"type": "integer"},
        "offset": _COUNT,
        "next_cursor": {"type": ["string", "null"], "description": "null on the last page."},
    }
    fault = {
        "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
        "msg": {"type": "string"},
        "type": {"type": "string"},
    }
    return {
        "Message": message,
        "StoredMessage": _object(fields),
        "Page": _object(page),
        "Stats": _object(stats),
        "Error": _object({"detail": {"type": "string"}}),
        "Faults": _object({"detail": {"type": "array", "minItems": 1, "items": _object(fault)}}),
    }


def _parameters(*without: str) -> list[Json]:
    """Return the parameters of a listing, as QUERY has them."""
    ts = _converted(MESSAGE)["properties"]["ts"]
    return [
        _parameter(name, dict(field), ts)
        for name, field in _converted(QUERY)["properties"].items()
        if name not in without
    ]


def _parameter(name: str, field: Json, ts: Json) -> Json:
    description, default = field.pop("description"), field.pop("default")
    if field["type"] == "integer":
        field["default"] = int(default)  # it stands in the schema as it would in a URL
    else:
        if field.get("format") == ts["format"]:
            field["pattern"] = ts["pattern"]
        # An empty filter is as if absent.
        field = {"anyOf": [field, {"const": ""}], "examples": _EXAMPLES[name]}
    return {"name": name, "in": "query", "description": description, "schema": field}


# Not `example`: Swagger UI would fill the filters in.
_EXAMPLES = {
    "from": ["+919876543210", "919876543210"],
    "from_msisdn": ["+919876543210"],
    "since": ["2025-01-15T10:00:00Z", "2025-01-15T10:00:00.5Z"],
    "q": ["hello"],
    "cursor": [""],
}


_COUNT: Json = {"type": "integer", "minimum": 0}


def _nullable(field: Json) -> Json:
    kept = {key: value for key, value in field.items() if key != "description"}
    return kept | {"type": [field["type"], "null"], "description": "null when there is none."}


def _object(properties: Json) -> Json:
    """Return the schema of an object with exactly these members."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


# -- answers


_HEADERS: Json = {
    "X-Request-ID": {"schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"}},
    "Retry-After": {"description": "In seconds.", "schema": {"type": "integer"}},
    "Link": {"description": "The next and previous page (RFC 8288).", "schema": {"type": "string"}},
    "WWW-Authenticate": {"schema": {"type": "string"}},
}


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _answer(description: str, schema: Json, example: Any, *headers: str) -> Json:
    return _answer_in(description, {"application/json": (schema, example)}, *headers)


def _answer_in(description: str, media: dict[str, tuple[Json, Any]], *headers: str) -> Json:
    return {
        "description": description,
        "headers": {name: _ref("headers", name) for name in ("X-Request-ID", *headers)},
        "content": {
            type_: {"schema": schema, **({} if example is None else {"example": example})}
            for type_, (schema, example) in media.items()
        },
    }


def _refusals() -> Json:
    error = _ref("schemas", "Error")

    def refusal(description: str, detail: str, *headers: str) -> Json:
        return _answer(description, error, {"detail": detail}, *headers)

    faults = {"detail": [{"loc": ["body", "ts"], "msg": "is required", "type": "missing"}]}
    return {
        "InvalidSignature": refusal("The signature does not fit the body.", "invalid signature"),
        "NoToken": refusal(
            "The server has a READ_TOKEN, and the request does not.",
            "a bearer token is required",
            "WWW-Authenticate",
        ),
        "BadRequest": refusal("The path is not UTF-8.", "bad request"),
        "NoSuchMessage": refusal("No message has this id.", "no such message"),
        "TooLarge": refusal("The body is larger than MAX_BODY_BYTES.", "request body too large"),
        "Invalid": _answer(
            "The input breaks these rules. No value is repeated.",
            _ref("schemas", "Faults"),
            faults,
        ),
        "InternalError": refusal("Our fault; the log has more.", "internal error"),
        "TryAgain": refusal(
            "Nothing is stored: the server is stopping, its queue is full, or the disk fails.",
            "try again later",
            "Retry-After",
        ),
        "NoStorage": refusal(
            "The database does not answer.", "storage is unavailable", "Retry-After"
        ),
        "Otherwise": refusal(_OTHERWISE, "bad request"),
    }


def _operation(tag: str, name: str, summary: str, answers: dict[str, Json], **more: Any) -> Json:
    shared = {
        "413": _ref("responses", "TooLarge"),
        "500": _ref("responses", "InternalError"),
        "default": _ref("responses", "Otherwise"),
    }
    responses = dict(sorted((answers | shared).items()))
    return {"tags": [tag], "operationId": name, "summary": summary, **more, "responses": responses}


def _status(word: str) -> Json:
    return _object({"status": {"const": word}})


# -- paths


def _message_paths() -> Json:
    invalid, stored = _ref("responses", "Invalid"), _ref("schemas", "StoredMessage")
    return {
        "/webhook": {"post": _webhook()},
        "/messages": {
            "get": _read(
                "listMessages",
                "A page of messages",
                {
                    "200": _answer("A page.", _ref("schemas", "Page"), _PAGE, "Link"),
                    "422": invalid,
                },
                description=_LISTING,
                parameters=_parameters(),
            )
        },
        "/messages/{message_id}": {
            "get": _read(
                "getMessage",
                "One message",
                {
                    "200": _answer("The message.", stored, EXAMPLE),
                    "400": _ref("responses", "BadRequest"),
                    "404": _ref("responses", "NoSuchMessage"),
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
                    "200": _answer_in(
                        "A StoredMessage in each line.",
                        {"application/x-ndjson": ({"type": "string"}, json.dumps(EXAMPLE) + "\n")},
                    ),
                    "422": invalid,
                },
                description="The same order and filters as a listing, without pages.",
                parameters=_parameters("limit", "offset", "cursor"),
            )
        },
        "/stats": {
            "get": _read(
                "getStats",
                "Counts over all messages",
                {"200": _answer("The counts.", _ref("schemas", "Stats"), _STATS)},
            )
        },
    }


def _webhook() -> Json:
    signature = {
        "name": "X-Signature",
        "in": "header",
        "required": True,
        "description": "The body's signature, in hex.",
        "schema": {"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"},
        "example": sign(EXAMPLE_SECRET.encode(), EXAMPLE_BODY.encode()),
    }
    content = {"schema": _ref("schemas", "Message"), "example": EXAMPLE}
    return _operation(
        "messages",
        "receiveMessage",
        "Store a signed message once",
        {
            "200": _answer("Stored, now or before.", _status("ok"), {"status": "ok"}),
            "401": _ref("responses", "InvalidSignature"),
            "422": _ref("responses", "Invalid"),
            "503": _ref("responses", "TryAgain"),
        },
        description=_WEBHOOK,
        parameters=[signature],
        requestBody={"required": True, "content": {"application/json": content}},
    )


def _read(name: str, summary: str, answers: dict[str, Json], **more: Any) -> Json:
    """An operation that shows messages: behind READ_TOKEN, and in need of the database."""
    refusals = {"401": _ref("responses", "NoToken"), "503": _ref("responses", "NoStorage")}
    security: list[Json] = [{}, {"readToken": []}]
    return _operation("messages", name, summary, answers | refusals, security=security, **more)


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
        return {"get": _operation("operations", name, summary, answers)}

    alive = {"200": _answer("The process runs.", _status("ok"), {"status": "ok"})}
    ready = {
        "200": _answer("A delivery would be stored now.", _status("ready"), {"status": "ready"}),
        "503": _answer(
            "It would not, and why.",
            _object({"status": {"const": "unavailable"}, "detail": {"type": "string"}}),
            {"status": "unavailable", "detail": "draining"},
            "Retry-After",
        ),
    }
    exposition: tuple[Json, Any] = ({"type": "string"}, None)
    metrics = _answer_in(
        "The exposition; OpenMetrics for those who ask for it by Accept.",
        {"text/plain": exposition, "application/openmetrics-text": exposition},
    )
    about = {name: {"type": "string"} for name in ("app", "env", "version")}
    root = {"app": "lyftr", "env": "production", "version": __version__}
    return {
        "/health": {"get": get("getHealth", "As /health/live", alive)["get"]},
        "/health/live": get("getLiveness", "Whether the process runs", alive),
        "/health/ready": get("getReadiness", "Whether to send deliveries here", ready),
        "/metrics": get("getMetrics", "Metrics for Prometheus", {"200": metrics}),
        "/": get("getRoot", "What this is", {"200": _answer("This.", _object(about), root)}),
    }


def _documentation_paths() -> Json:
    page: tuple[Json, Any] = ({"type": "string"}, None)
    this: Json = {"type": "object", "required": ["openapi", "info", "paths"]}
    return {
        "/docs": {
            "get": _operation(
                "documentation",
                "getDocs",
                "This page",
                {"200": _answer_in("A page for browsers.", {"text/html": page})},
            )
        },
        "/openapi.json": {
            "get": _operation(
                "documentation",
                "getOpenapi",
                "This document",
                {"200": _answer("OpenAPI 3.1.", this, None)},
            )
        },
    }
