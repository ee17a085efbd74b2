"""One handler for each route, and the routes."""

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from ..base import BaseHandler
from ..sources import Source
from .admin import PersonHandler
from .docs import (
    DocsHandler,
    InitScriptHandler,
    OpenapiHandler,
    SwaggerScriptHandler,
    SwaggerStyleHandler,
)
from .events import EventsExportHandler, EventsHandler
from .inspector import FaviconHandler, InspectorFileHandler, InspectorHandler
from .messages import (
    ExportHandler,
    MessageHandler,
    MessagesHandler,
    PayloadHandler,
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
from .refused import RefusedExportHandler, RefusedHandler, UnsignedHandler
from .stream import StreamHandler
from .webhook import delivery_handler

# Paths that stand for themselves, without those of senders, and those that hold a name.
EXACT: dict[str, type[BaseHandler]] = {
    handler.route: handler
    for handler in (
        EventsHandler,
        EventsExportHandler,
        RefusedHandler,
        RefusedExportHandler,
        UnsignedHandler,
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
        FaviconHandler,
    )
}
PATTERNS: tuple[tuple[re.Pattern[str], type[BaseHandler]], ...] = (
    (re.compile(r"/messages/([^/]+)"), MessageHandler),
    (re.compile(r"/messages/([^/]+)/payload"), PayloadHandler),
    (re.compile(r"/people/([^/]+)"), PersonHandler),
    (re.compile(r"/inspector/assets/([^/]+)/([^/]+)"), InspectorFileHandler),
)


class Routes:
    """The routes of an application: those of its senders, and all others."""

    def __init__(self, sources: Mapping[str, tuple[Source, ...]]) -> None:
        deliveries = {route: delivery_handler(senders) for route, senders in sources.items()}
        self._exact = {**EXACT, **deliveries}

    def find(self, path: str) -> tuple[type[BaseHandler], list[bytes]]:
        """Return the handler of a path, and what the path holds for it: percent-decoded bytes."""
        handler = self._exact.get(path)
        if handler is not None:
            return handler, []
        for pattern, handler in PATTERNS:
            match = pattern.fullmatch(path)
            if match:
                return handler, [unquote_to_bytes(part) for part in match.groups()]
        return NotFoundHandler, []
