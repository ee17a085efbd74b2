"""What operators and their tools ask, and the pages for browsers."""

from typing import Any

from .. import __version__
from .answers import answer, answer_in, operation, status
from .schemas import Json, object_of, ref


def operations_paths() -> Json:
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
        "/metrics": get(
            "getMetrics",
            "Metrics for Prometheus",
            {
                "200": metrics,
                "403": ref("responses", "OtherSite"),
                "421": ref("responses", "OtherName"),
            },
        ),
        "/": get(
            "getRoot",
            "What this is",
            {
                "200": answer("This.", object_of(about), root),
                "303": answer(
                    "The same, for who asks for HTML.", object_of(about), root, "Location"
                ),
            },
        ),
    }


def documentation_paths() -> Json:
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
                {
                    "200": answer_in("A page for browsers.", {"text/html": page}),
                    "421": ref("responses", "OtherName"),
                },
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
