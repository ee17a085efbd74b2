"""A request as it arrives, and as the application sees it."""

import re
from typing import Any

from tornado.escape import parse_qs_bytes
from tornado.httputil import HTTPServerRequest

_MAX_ARGUMENTS = 1000
_REQUEST_ID = re.compile(rb"^x-request-id:[ \t]*([!-~]+)[ \t]*\r?\n", re.IGNORECASE | re.MULTILINE)
# What such a field takes, and some spaces.
FIELD_BYTES = 256
# A name or an address, perhaps with a port, and no list of them (RFC 9112, 3.2).
_HOST = re.compile(r"[A-Za-z0-9._~%!$&'()*+;=:\[\]-]*")
# The target of a request to a proxy (RFC 9112, 3.2.2); what follows the authority is the path.
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")


class Upload:
    """A request as far as it has arrived."""

    __slots__ = (
        "_body",
        "body_since",
        "client",
        "expects_continue",
        "head_bytes",
        "head_complete",
        "head_end",
        "header_count",
        "headers",
        "idle_bytes",
        "keep_alive",
        "method",
        "offers_upgrade",
        "refusal",
        "reserved",
        "room",
        "size",
        "started",
        "target",
        "too_large",
        "version",
        "wants_body",
    )

    def __init__(self, started: float, client: str) -> None:
        self.started = started
        self.client = client  # its address
        self.method = ""
        self.version = "1.1"
        self.target = b""
        self.headers = Fields()
        self.header_count = 0
        self.head_bytes = 0
        self.head_complete = False
        self.head_end = b""  # the last bytes of a head that is not whole
        self.body_since = started
        self.wants_body = False  # else it is read, and dropped
        self.size = 0  # of the body
        self.room = 0  # for the body, as far as it is reserved
        self.reserved = 0  # bytes of its client's share
        self.idle_bytes = 0  # in a row, that ended no head and brought no body
        self.too_large = False
        self.keep_alive = False
        self.expects_continue = False
        self.offers_upgrade = False
        self.refusal = 0  # the status to refuse it with, unseen by the application
        self._body: bytes | bytearray = b""

    def add_header(self, name: bytes, value: bytes) -> None:
        self.header_count += 1
        self.head_bytes += len(name) + len(value) + 4
        self.headers.add(name.decode("latin-1"), value.decode("latin-1"))

    def add(self, chunk: bytes) -> None:
        """Take a part of the body; most bodies come in one."""
        if self.wants_body:
            if not self.size:
                self._body = chunk
            else:
                if isinstance(self._body, bytes):
                    self._body = bytearray(self._body)
                self._body += chunk
        self.size += len(chunk)

    def drop_body(self) -> None:
        self._body = b""
        self.wants_body = False

    def find_request_id(self) -> None:
        """Look for the id in the end of a head that will never be whole.

        httptools keeps each field to itself until the next one begins, and so the last for ever.
        """
        if not self.head_complete and "x-request-id" not in self.headers:
            head = self.head_end.lstrip(b"\r\n").partition(b"\r\n\r\n")[0] + b"\r\n"
            for found in _REQUEST_ID.findall(head):
                self.headers.add("x-request-id", found.decode("ascii"))
        self.head_end = b""

    def says_close(self) -> bool:
        """Whether close is among the options; in HTTP/1.0 llhttp overlooks it beside keep-alive."""
        options = self.headers.get("connection", "").lower().split(",")
        return "close" in [option.strip() for option in options]

    def head_without_upgrade(self) -> bytes:
        """Return the head, but for the offer to speak something else."""
        lines = [f"{self.method} {self.target.decode('latin-1')} HTTP/{self.version}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items() if name != "upgrade"]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def body(self) -> bytes:
        return bytes(self._body)

    def host(self) -> str:
        """Return the Host field's value, or raise ValueError (RFC 9112, 3.2)."""
        host = self.headers.own("host")
        if host is None and self.version == "1.0":
            return ""
        if host is None or not _HOST.fullmatch(host):
            raise ValueError("one valid Host is needed")
        return host

    def origin_form(self) -> str:
        """Return the path and query, whatever form the target has."""
        target = self.target.decode("latin-1")
        if target.startswith("/"):
            return target
        authority = _AUTHORITY.match(target)
        if authority is None:
            return target  # an asterisk, or CONNECT's
        rest = target[authority.end() :]
        return rest if rest.startswith("/") else f"/{rest}"

    def path(self) -> str:
        return self.origin_form().partition("?")[0]


class Fields(dict[str, str]):
    """Header fields by lower-case name. HTTPHeaders checks and spells each once more: 5 us."""

    def add(self, name: str, value: str) -> None:
        """Add a field; the values of a repeated one are joined (RFC 9110, 5.3)."""
        name = name.lower()
        self[name] = f"{self[name]},{value}" if name in self else value

    # By its name in lower case: what http1 itself asks for.
    own = dict[str, str].get

    def get(self, name: str, default: Any = None) -> Any:
        return self.own(name.lower(), default)


class Request(HTTPServerRequest):
    """HTTPServerRequest's public attributes, without parsing again what llhttp parsed: 7 us less.

    Raises ValueError for a Host or a query that no handler should see.
    """

    def __init__(self, upload: Upload, exchange: Any) -> None:
        self.method = upload.method
        self.uri = upload.origin_form()
        self.version = f"HTTP/{upload.version}"
        self.headers = upload.headers  # type: ignore[assignment]
        self.body = upload.body()
        self.connection = exchange
        self.server_connection = None
        self.remote_ip = upload.client
        self.protocol = "http"
        self.host = upload.host()
        self.host_name = self.host.lower()
        self.path, _, self.query = self.uri.partition("?")
        self.arguments = {}
        if self.query:
            self.arguments = parse_qs_bytes(
                self.query, keep_blank_values=True, max_num_fields=_MAX_ARGUMENTS
            )
        self.query_arguments = self.arguments
        self.body_arguments = {}
        self.files = {}
