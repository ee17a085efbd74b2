"""The API page and the document that it shows. Swagger UI's files come from the offapi package."""

import asyncio
import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import ClassVar

from ..base import BaseHandler
from ..openapi import document_bytes

# Nothing inline, and nothing from elsewhere. The style sheet has images of its own, as data:.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_SAFE = (("Referrer-Policy", "no-referrer"),)
_CHANGES = ("Cache-Control", "no-cache")
_NEVER_CHANGES = ("Cache-Control", "public, max-age=31536000, immutable")


class OpenapiHandler(BaseHandler):
    """GET /openapi.json: the document."""

    route = "/openapi.json"

    async def get(self) -> None:
        self.reply(200, document_bytes(self.application.table), (*_SAFE, _CHANGES))


class DocsHandler(BaseHandler):
    """GET /docs: the page. It names each file with its version."""

    route = "/docs"

    async def get(self) -> None:
        page = await asyncio.to_thread(_page)
        headers = [("Content-Type", "text/html; charset=utf-8"), _CHANGES, *_SAFE]
        self.reply(200, page, [*headers, ("Content-Security-Policy", _POLICY)])


class AssetHandler(BaseHandler):
    """A file of the page. Asked for with its version, it may be kept for ever."""

    content_type: ClassVar[str] = "text/javascript; charset=utf-8"
    package: ClassVar[str] = "offapi"
    file: ClassVar[str]

    async def get(self) -> None:
        body, version = await asyncio.to_thread(_asset, self.package, self.file)
        current = self.request.query == f"v={version}"
        caching = _NEVER_CHANGES if current else _CHANGES
        headers = [("Content-Type", self.content_type), caching, *_SAFE]
        await self.reply_in_pieces(body, headers)


class InitScriptHandler(AssetHandler):
    route = "/docs/init.js"
    package = "lyftr_server"
    file = "static/init.js"


class SwaggerScriptHandler(AssetHandler):
    route = "/docs/swagger-ui.js"
    file = "swagger_bundle.js"


class SwaggerStyleHandler(AssetHandler):
    route = "/docs/swagger-ui.css"
    content_type = "text/css; charset=utf-8"
    file = "swagger_style.css"


@cache
def _page() -> bytes:
    page, _ = _asset("lyftr_server", "static/docs.html")
    for handler in (InitScriptHandler, SwaggerScriptHandler, SwaggerStyleHandler):
        _, version = _asset(handler.package, handler.file)
        url = handler.route.removeprefix("/").encode()
        page = page.replace(b'"%b"' % url, b'"%b?v=%b"' % (url, version.encode()))
    return page


@cache
def _asset(package: str, file: str) -> tuple[bytes, str]:
    """Return a file and its version. Read when asked for first: most servers show no page."""
    # Finding offapi costs nothing, importing it 138 ms and 38 MB.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(package)
    body = (Path(spec.submodule_search_locations[0]) / file).read_bytes()
    return body, hashlib.sha256(body).hexdigest()[:16]
