"""One handler for each route, and the routes."""

import re
from urllib.parse import unquote_to_bytes

from ..base import BaseHandler
from .docs import (
    DocsHandler,
    InitScriptHandler,
    OpenapiHandler,
    SwaggerScriptHandler,
    SwaggerStyleHandler,
)
from .inspector import InspectorFileHandler, InspectorHandler
from .messages import (
    ExportHandler,
    MessageHandler,
    MessagesHandler,
    StatsHandler,
    TimelineHandler,
)
from .operations import (
    HealthHandler,
    LiveHandler,
    MetricsHandler,
    NotFoundHandler,
    ReadyHandler,
    RootHandler,
)
from .stream import StreamHandler
from .webhook import WebhookHandler

# Paths that stand for themselves, and those that hold a name.
EXACT: dict[str, type[BaseHandler]] = {
    handler.route: handler
    for handler in (
        WebhookHandler,
        MessagesHandler,
        ExportHandler,
        StreamHandler,
        StatsHandler,
        TimelineHandler,
        HealthHandler,
        LiveHandler,
        ReadyHandler,
        MetricsHandler,
        RootHandler,
        OpenapiHandler,
        DocsHandler,
        InitScriptHandler,
        SwaggerScriptHandler,
        SwaggerStyleHandler,
        InspectorHandler,
    )
}
PATTERNS: tuple[tuple[re.Pattern[str], type[BaseHandler]], ...] = (
    (re.compile(r"/messages/([^/]+)"), MessageHandler),
    (re.compile(r"/inspector/assets/([^/]+)/([^/]+)"), InspectorFileHandler),
)


def find(path: str) -> tuple[type[BaseHandler], list[bytes]]:
    """Return the handler of a path, and what the path holds for it: percent-decoded bytes."""
    handler = EXACT.get(path)
    if handler is not None:
        return handler, []
    for pattern, handler in PATTERNS:
        match = pattern.fullmatch(path)
        if match:
            return handler, [unquote_to_bytes(part) for part in match.groups()]
    return NotFoundHandler, []
