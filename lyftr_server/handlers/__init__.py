"""One handler for each route, and the routes."""

from ..base import BaseHandler
from .docs import (
    DocsHandler,
    InitScriptHandler,
    OpenapiHandler,
    SwaggerScriptHandler,
    SwaggerStyleHandler,
)
from .messages import ExportHandler, MessageHandler, MessagesHandler, StatsHandler
from .operations import (
    HealthHandler,
    LiveHandler,
    MetricsHandler,
    NotFoundHandler,
    ReadyHandler,
    RootHandler,
)
from .webhook import WebhookHandler

# Paths that stand for themselves, and the one that holds an id.
EXACT: dict[str, type[BaseHandler]] = {
    handler.route: handler
    for handler in (
        WebhookHandler,
        MessagesHandler,
        ExportHandler,
        StatsHandler,
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
    )
}
PATTERNS: list[tuple[str, type[BaseHandler]]] = [(r"/messages/([^/]+)", MessageHandler)]

__all__ = ["EXACT", "PATTERNS", "NotFoundHandler"]
