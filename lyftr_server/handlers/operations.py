"""What operators and their tools ask: health, metrics, and what this is."""

from .. import __version__
from ..base import RETRY_AFTER, BaseHandler, Refused

_OK = b'{"status": "ok"}'


class LiveHandler(BaseHandler):
    """GET /health/live and /health: the process runs."""

    route = "/health/live"

    async def get(self) -> None:
        self.reply(200, _OK)


class HealthHandler(LiveHandler):
    route = "/health"


class ReadyHandler(BaseHandler):
    """GET /health/ready: a delivery would be stored now."""

    route = "/health/ready"

    async def get(self) -> None:
        reason = await self.application.unready()
        if reason is None:
            self.reply_json(200, {"status": "ready"})
        else:
            self.reply_json(503, {"status": "unavailable", "detail": reason}, [RETRY_AFTER])


class MetricsHandler(BaseHandler):
    """GET /metrics: the Prometheus exposition."""

    route = "/metrics"

    async def get(self) -> None:
        gauges = await self.application.gauges()
        accept = self.request.headers.get("Accept", "")
        body, content_type = self.application.metrics.render(accept, gauges)
        self.reply(200, body, [("Content-Type", content_type)])


class RootHandler(BaseHandler):
    """GET /: what this is."""

    route = "/"

    async def get(self) -> None:
        config = self.application.config
        self.reply_json(200, {"app": config.app_name, "env": config.env, "version": __version__})


class NotFoundHandler(BaseHandler):
    """Every other path."""

    def check(self) -> None:
        raise Refused(404, "not found")
