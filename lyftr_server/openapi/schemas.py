"""The schemas of what is sent and answered, made from those that validate."""

from typing import Any

from voluptuous_openapi import UNSUPPORTED, OpenApiVersion, convert

from ..records import Erased
from ..schema import MESSAGE, QUERY

Json = dict[str, Any]

EXAMPLE: Json = {
    "message_id": "m1",
    "from": "+919876543210",
    "to": "+14155550100",
    "ts": "2025-01-15T10:00:00Z",
    "text": "Hello",
}
_COUNT: Json = {"type": "integer", "minimum": 0}
# Where a string may stand, it may not have U+0000.
_PLAIN = "^[^\\u0000]*$"


def _converted(schema: Any) -> Json:
    found: Json = convert(
        schema, custom_serializer=_serialized, openapi_version=OpenApiVersion.V3_1
    )
    return found


def _serialized(validator: Any) -> Any:
    """Return what a validator of ours says of itself."""
    described = getattr(validator, "json_schema", None)
    if described is None:
        return UNSUPPORTED
    if "string" in described["type"] and "enum" not in described:
        return {"pattern": _PLAIN} | described
    return dict(described)


def schemas() -> Json:
    """Return the schemas by name."""
    message = _converted(MESSAGE) | {"examples": [EXAMPLE]}
    fields = {name: dict(field) for name, field in message["properties"].items()}
    del fields["text"]["default"]
    fields["text"]["description"] = "The text; null when there was none."
    stats = {
        "total_messages": _COUNT,
        "senders_count": _COUNT,
        "messages_per_sender": {
            "type": "array",
            "description": "The ten with most, then by number.",
            "maxItems": 10,
            "items": object_of(
                {"from": fields["from"], "count": {"type": "integer", "minimum": 1}}
            ),
        },
        "first_message_ts": _nullable(fields["ts"]),
        "last_message_ts": _nullable(fields["ts"]),
        "recipients_count": _COUNT,
        "messages_last_24h": _COUNT | {"description": "Stored in the last 24 hours."},
        "top_sender": _nullable(fields["from"]),
    }
    page = {
        "data": {"type": "array", "maxItems": 100, "items": ref("schemas", "StoredMessage")},
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
        "StoredMessage": object_of(fields),
        "MessageDetail": object_of(
            fields
            | {
                "source": {"type": "string", "description": "Who sent it."},
                "received_at": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When it was stored, by the server's clock.",
                },
            }
        ),
        "Page": object_of(page),
        **_kept(fault),
        "Stats": object_of(stats),
        "Timeline": object_of({"by": {"enum": ["hour", "day"]}, "data": _buckets()}),
        "Erased": object_of(dict.fromkeys(Erased._fields, _COUNT)),
        "Error": object_of({"detail": {"type": "string"}}),
        "Faults": object_of(
            {"detail": {"type": "array", "minItems": 1, "items": object_of(fault)}}
        ),
    }


def _buckets() -> Json:
    bucket = {"start": {"type": "string", "format": "date-time"}, "count": _COUNT}
    return {"type": "array", "maxItems": 1000, "items": object_of(bucket)}


_NAME: Json = {"type": "string"}
_AT: Json = {"type": "string", "format": "date-time", "description": "By our clock."}
_ID: Json = {"type": ["string", "null"]}
_CURSOR: Json = {"type": ["string", "null"], "description": "null on the last page."}


def _kept(fault: Json) -> Json:
    """Return the schemas of what is kept beside the messages."""
    own = {"id": _COUNT, "at": _AT, "source": _NAME}
    event = own | {"kind": _NAME, "message_id": _ID}
    event["body"] = {"description": "Its own JSON as it came."}
    refused = object_of(
        own
        | {
            "result": {"enum": ["validation_error", "conflict"]},
            "request_id": _NAME,
            "message_id": _ID,
            "size": _COUNT,
            "detail": {"type": "array", "items": object_of(fault)},
            "body": {"type": "string", "description": "As it came."},
        }
    )
    refused["properties"]["body_base64"] = {
        "type": "string",
        "description": "Its bytes, where they are no UTF-8.",
    }
    unsigned = {"at": _AT, "request_id": _NAME, "route": _NAME, "size": _COUNT, "reason": _NAME}
    return {
        "Event": object_of(event),
        "EventPage": _page_of(ref("schemas", "Event")),
        "RefusedBody": refused,
        "RefusedPage": _page_of(ref("schemas", "RefusedBody")),
        "Unsigned": object_of({"data": {"type": "array", "items": object_of(unsigned)}}),
    }


def _page_of(row: Json) -> Json:
    rows = {"type": "array", "maxItems": 100, "items": row}
    return object_of({"data": rows, "limit": {"type": "integer"}, "next_cursor": _CURSOR})


# Not as `example`: Swagger UI would fill the filters in.
_EXAMPLES = {
    "from": ["+919876543210", "919876543210"],
    "from_msisdn": ["+919876543210"],
    "since": ["2025-01-15T10:00:00Z", "2025-01-15T10:00:00.5Z"],
    "until": ["2025-01-16T00:00:00Z", "2025-01-16"],
    "q": ["hello"],
}


def parameters(*without: str, query: Any = QUERY) -> list[Json]:
    """Return the parameters of a listing, as QUERY has them, or of another query."""
    return [
        _parameter(name, dict(field))
        for name, field in _converted(query)["properties"].items()
        if name not in without
    ]


def _parameter(name: str, field: Json) -> Json:
    description, default = field.pop("description"), field.pop("default")
    if field["type"] == "integer":
        field["default"] = int(default)  # it stands in the schema as it would in a URL
    elif "enum" in field:
        field["default"] = default
    # An empty filter is as if absent.
    elif field.get("format") == "date-time":
        field = {"anyOf": [field, {"type": "string", "format": "date"}, {"const": ""}]}
    elif field["pattern"] != _PLAIN:
        field["pattern"] = f"^({field['pattern'][1:-1]})?$"
    field |= {"examples": _EXAMPLES[name]} if name in _EXAMPLES else {}
    return {"name": name, "in": "query", "description": description, "schema": field}


def _nullable(field: Json) -> Json:
    kept = {key: value for key, value in field.items() if key != "description"}
    return kept | {"type": [field["type"], "null"], "description": "null when there is none."}


def object_of(properties: Json) -> Json:
    """Return the schema of an object with exactly these members."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def ref(kind: str, name: str) -> Json:
    """Return a reference to a part of the document's components."""
    return {"$ref": f"#/components/{kind}/{name}"}
