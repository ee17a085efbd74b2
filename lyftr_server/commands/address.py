"""Where a server is, ours or another's, and what is wrong when it does not do as it is asked."""

import json
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from . import server_url


class Address(NamedTuple):
    """A place of a server. Redirects are not followed: who answers is whom we were told."""

    secure: bool
    host: str
    port: int | None
    path: str

    @classmethod
    def of_server(cls, url: str | None, route: str = "") -> "Address":
        """Return this route of the server at `url`, which may name it already. ValueError.

        Without a `url`, of the server of this configuration; ConfigError.
        """
        parts = _split("--url", url or server_url(), "http://127.0.0.1:8000")
        if parts.query:
            raise ValueError("--url must be a server's address, without a query")
        return cls._of(parts, parts.path.rstrip("/").removesuffix(route) + route)

    @classmethod
    def of_receiver(cls, url: str) -> "Address":
        """Return where another program takes webhooks. ValueError."""
        parts = _split("--to", url, "https://example.com/hooks")
        return cls._of(parts, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))

    @classmethod
    def _of(cls, parts: SplitResult, path: str) -> "Address":
        return cls(parts.scheme == "https", parts.hostname or "", parts.port, path)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"http{'s' * self.secure}://{host}{port}{self.path}"

    def connection(self, seconds: float | None) -> HTTPConnection:
        """Return a connection that waits for so long; None: for ever."""
        kind = HTTPSConnection if self.secure else HTTPConnection
        return kind(self.host, self.port, timeout=seconds)


def _split(option: str, url: str, example: str) -> SplitResult:
    parts = urlsplit(url)
    ascii_only = f"{parts.path}{parts.query}".isascii()
    if parts.scheme not in ("http", "https") or not parts.hostname or not ascii_only:
        raise ValueError(f"{option} must look like {example}, not {url}")
    if parts.fragment or parts.username is not None:
        raise ValueError(f"{option} must be without user and fragment")
    return parts


def retry_after(answer: HTTPResponse, most: float) -> float:
    """Return how long the server asks to be left alone, in seconds; 0 when it does not say."""
    value = answer.getheader("Retry-After", "")
    plain = value.isascii() and value.isdigit() and len(value) < 9
    return min(float(value), most) if plain else 0.0


def reason(answer: HTTPResponse, content: bytes) -> str:
    """Return the server's own words for what is wrong, or else HTTP's."""
    try:
        detail = json.loads(content)["detail"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return answer.reason
    try:
        # ["body", "from"]: the field is what the person looks for.
        return "; ".join(f"{fault['loc'][-1]} {fault['msg']}" for fault in detail)
    except (LookupError, TypeError):
        return str(detail)


def words(error: Exception) -> str:
    """Return what a failed connection has to say."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
