"""The OpenAPI 3.1 document: what the schemas accept, and what each route answers."""

import json
from collections.abc import Sequence
from functools import cache

from .. import __version__
from ..sources import SOURCES, Source
from .answers import HEADERS, refusals
from .deliveries import deliveries
from .kept import kept_paths
from .messages import message_paths
from .operations import documentation_paths, operations_paths
from .schemas import Json, schemas

_ABOUT = """\
Stores each signed message exactly once, and gives it back.

- Every GET answers HEAD too. Another method is answered 405, another path 404.
- Every refusal is JSON: `{"detail": ...}`.
- Every answer has an `X-Request-ID`: the request's own if it sent one of 1 to 128 letters, digits,
  `.`, `_` and `-`, else one of ours.
"""


@cache
def document_bytes(table: tuple[type[Source], ...]) -> bytes:
    """Return the document as JSON. It says the same as long as the program runs."""
    return json.dumps(document(table), ensure_ascii=False).encode() + b"\n"


def document(table: Sequence[type[Source]] = SOURCES) -> Json:
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
            {"name": "erasing", "description": "What must go, goes without a trace."},
            {"name": "operations", "description": "What operators and their tools ask."},
            {"name": "documentation", "description": "Pages for browsers."},
        ],
        "paths": deliveries(table)
        | message_paths()
        | kept_paths()
        | operations_paths()
        | documentation_paths(),
        "components": {
            "schemas": schemas(),
            "responses": refusals(),
            "headers": HEADERS,
            "securitySchemes": {
                "readToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Needed only when the server runs with READ_TOKEN.",
                },
                "adminToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "ADMIN_TOKEN; the server without it has nothing to erase with.",
                },
            },
        },
    }
