"""What is kept beside the messages: events and refused bodies."""

import json
from typing import Any

from ..schema import EVENT_QUERY, PAGING, REFUSED_QUERY
from .answers import answer, answer_in, read
from .schemas import Json, parameters, ref


def kept_paths() -> Json:
    """Return what is kept beside the messages."""
    events, refused = parameters(query=EVENT_QUERY), parameters(query=REFUSED_QUERY)
    all_events = parameters(*PAGING, query=EVENT_QUERY)
    all_refused = parameters(*PAGING, query=REFUSED_QUERY)
    invalid = ref("responses", "Invalid")
    unsigned = {
        "at": "2025-01-15T10:00:00.250000Z",
        "request_id": "a1",
        "route": "/webhook",
        "size": 2,
        "reason": "invalid_signature",
    }
    return {
        "/events": {
            "get": read(
                "listEvents",
                "A page of what senders sent beside messages",
                {"200": answer("A page.", ref("schemas", "EventPage"), _EVENTS), "422": invalid},
                description="In the order of storing. `since` and `until` go by our clock.",
                parameters=events,
            )
        },
        "/events.ndjson": {
            "get": read(
                "exportEvents",
                "All events, one a line",
                {"200": _ndjson("An Event in each line.", _EVENTS["data"][0]), "422": invalid},
                parameters=all_events,
            )
        },
        "/refused": {
            "get": read(
                "listRefused",
                "A page of signed bodies that could not be stored as asked, the newest first",
                {"200": answer("A page.", ref("schemas", "RefusedPage"), _REFUSED), "422": invalid},
                parameters=refused,
            )
        },
        "/refused.ndjson": {
            "get": read(
                "exportRefused",
                "All refused bodies, one a line",
                {
                    "200": _ndjson("A RefusedBody in each line.", _REFUSED["data"][0]),
                    "422": invalid,
                },
                parameters=all_refused,
            )
        },
        "/refused/unsigned": {
            "get": read(
                "listUnsigned",
                "The last hundred bodies that nobody had signed, the newest first",
                {
                    "200": answer("Those.", ref("schemas", "Unsigned"), {"data": [unsigned]}),
                    "422": invalid,
                },
                description="From memory, since the start; nothing of their content is kept.",
            )
        },
    }


def _ndjson(description: str, example: Any) -> Json:
    schema: Json = {"type": "string"}
    return answer_in(description, {"application/x-ndjson": (schema, json.dumps(example) + "\n")})


_EVENTS: Json = {
    "data": [
        {
            "id": 1,
            "at": "2025-01-15T10:00:00.250000Z",
            "source": "whatsapp",
            "kind": "status.delivered",
            "message_id": "wamid.m1",
            "body": {"id": "wamid.m1", "status": "delivered"},
        }
    ],
    "limit": 50,
    "next_cursor": None,
}
_REFUSED: Json = {
    "data": [
        {
            "id": 1,
            "at": "2025-01-15T10:00:00.250000Z",
            "source": "native",
            "result": "validation_error",
            "request_id": "a1",
            "message_id": None,
            "size": 2,
            "detail": [{"loc": ["body", "ts"], "msg": "is required", "type": "missing"}],
            "body": "{}",
        }
    ],
    "limit": 50,
    "next_cursor": None,
}
