"""What operators and their tools ask: health, metrics, and what this is."""

from .. import __version__
from ..base import RETRY_AFTER, BaseHandler, Refused

_OK = b'{"status": "ok"}\n'


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

    def check(self) -> None:
        super().check()
        self.check_host()
        self.check_site()

    async def get(self) -> None:
        gauges = await self.application.gauges()
        accept = self.request.headers.get("Accept", "")
        body, content_type = self.application.metrics.render(accept, gauges)
        self.reply(200, body, [("Content-Type", content_type)])


class RootHandler(BaseHandler):
    """GET /: what this is; a browser that a person points here is sent to the inspector."""

    route = "/"

    async def get(self) -> None:
        config = self.application.config
        content = {"app": config.app_name, "env": config.env, "version": __version__}
        vary = ("Vary", "Accept")
        if _asks_for_a_page(self.request.headers.get("Accept", "")):
            # Relative: before us may be a proxy with a path of its own.
            self.reply_json(303, content, [("Location", "inspector"), vary])
        else:
            self.reply_json(200, content, [vary])


class NotFoundHandler(BaseHandler):
    """Every other path."""

    def check(self) -> None:
        raise Refused(404, "not found")


def _asks_for_a_page(accept: str) -> bool:
    """Tell whether HTML is named, as browsers do; curl and most programs take anything."""
    return any(each.partition(";")[0].strip().lower() == "text/html" for each in accept.split(","))
