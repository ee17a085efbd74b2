"""The inspector: a page that shows what arrives, and its files; nothing comes from elsewhere."""

import asyncio
import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ..base import BaseHandler, Refused

# Nothing inline, nothing from elsewhere, and no frame around it: it shows what others wrote.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_SAFE = (("Referrer-Policy", "no-referrer"),)
_CHANGES = ("Cache-Control", "no-cache")
_KEPT = ("Cache-Control", "public, max-age=86400")
_NEVER_CHANGES = ("Cache-Control", "public, max-age=31536000, immutable")
_FOLDER = Path(__file__).parent.parent / "inspector"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_UTF8 = "; charset=utf-8"


class InspectorHandler(BaseHandler):
    """GET /inspector: the page. It names its files with their version."""

    route = "/inspector"

    def check(self) -> None:
        super().check()
        self.check_host()

    async def get(self) -> None:
        page = (await asyncio.to_thread(_files)).page
        headers = [("Content-Type", f"text/html{_UTF8}"), _CHANGES, *_SAFE]
        self.reply(200, page, [*headers, ("Content-Security-Policy", _POLICY)])


class FaviconHandler(BaseHandler):
    """GET /favicon.ico: the page's icon, for browsers that look at anything else of ours."""

    route = "/favicon.ico"

    async def get(self) -> None:
        icon = (await asyncio.to_thread(_files)).bodies["icon.svg"]
        self.reply(200, icon, [("Content-Type", _TYPES[".svg"] + _UTF8), _KEPT, *_SAFE])


class InspectorFileHandler(BaseHandler):
    """GET /inspector/assets/{version}/{file}: a file of the page, to be kept for ever.

    The version stands in the path and not in the query: so modules that name one another relatively
    get files of one version, whatever a browser has kept.
    """

    route = "/inspector/assets/{version}/{file}"

    async def get(self, version: str, name: str) -> None:
        files = await asyncio.to_thread(_files)
        body = files.bodies.get(name)
        if body is None:
            raise Refused(404, "not found")
        caching = _NEVER_CHANGES if version == files.version else _CHANGES
        content_type = _TYPES[Path(name).suffix] + _UTF8
        await self.reply_in_pieces(body, [("Content-Type", content_type), caching, *_SAFE])


class _PageFiles(NamedTuple):
    page: bytes
    version: str
    bodies: dict[str, bytes]


@cache
def _files() -> _PageFiles:
    """Return the page and its files. Read when asked for first: most servers show no page."""
    paths = sorted(path for path in _FOLDER.iterdir() if path.suffix in _TYPES)
    bodies = {path.name: path.read_bytes() for path in paths}
    digest = hashlib.sha256()
    for name, body in bodies.items():
        digest.update(b"%b %d\n" % (name.encode(), len(body)) + body)
    version = digest.hexdigest()[:16]
    # The modules that the first one imports, all at once and not one after the other.
    modules = [name for name in bodies if name.endswith(".js") and name != "main.js"]
    preloads = "\n".join(f'<link rel="modulepreload" href="inspector/assets/{n}">' for n in modules)
    page = (_FOLDER / "index.html").read_text("utf-8")
    page = page.replace("</head>", f"{preloads}\n</head>")
    page = page.replace("inspector/assets/", f"inspector/assets/{version}/")
    return _PageFiles(page.encode(), version, bodies)
