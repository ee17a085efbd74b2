"""lyftr-server erase: make a running server erase all of a person's messages."""

import argparse
import json
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import quote, urlsplit

from ..config import ConfigError, setting
from . import Commands, add, server_address

_DETAILS = """\
Asks the server at --url (HOST and PORT, if not given) to erase every message from or to NUMBER,
with its events and refused bodies; ADMIN_TOKEN, or ADMIN_TOKEN_FILE, must be the server's. It
answers once no byte of them is left in its database, which may take minutes for millions of
messages. Backups, exports and whoever followed the stream have copies of their own: see
docs/keeping-less.md.

exit status: 0 done; 1 it went wrong, ask again: what was begun goes on; 2 the command line or the
configuration is wrong."""

_EXAMPLES = """\
  lyftr-server erase +919876543210 --dry-run
  ADMIN_TOKEN=... lyftr-server erase +919876543210 --url https://messages.example.com"""


def add_to(commands: Commands) -> None:
    parser = add(
        commands, "erase", "erase a person's messages", details=_DETAILS, examples=_EXAMPLES
    )
    parser.add_argument("number", metavar="NUMBER", help="as from and to have it, or a user id")
    parser.add_argument("--dry-run", action="store_true", help="only count what would go")
    parser.add_argument("--url", help="the server's address (default: HOST and PORT)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        connection, path = _target(options.url)
        token = setting("ADMIN_TOKEN") or setting("ADMIN_TOKEN_FILE")
        if token is None:
            raise ConfigError({"ADMIN_TOKEN": "must be set to the server's"})
    except (ConfigError, ValueError) as error:
        return _failed(2, str(error))
    method = "GET" if options.dry_run else "DELETE"
    target = f"{path}/people/{quote(options.number, safe='')}"
    try:
        connection.request(method, target, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, HTTPException) as error:
        return _failed(1, str(error) or type(error).__name__)
    finally:
        connection.close()
    if answer.status != 200:
        return _failed(1, f"{answer.status} {_detail(content) or answer.reason}")
    counts = ", ".join(f"{name} {n}" for name, n in json.loads(content).items())
    print(f"{'would erase' if options.dry_run else 'erased'}: {counts}")
    return 0


def _target(url: str | None) -> tuple[HTTPConnection, str]:
    """Return a connection to the server, and what its paths begin with. ValueError."""
    if url is None:
        return HTTPConnection(*server_address()), ""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"--url must look like http://127.0.0.1:8000, not {url}")
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return kind(parts.hostname, parts.port), parts.path.rstrip("/")


def _detail(content: bytes) -> str:
    try:
        return str(json.loads(content)["detail"])
    except (ValueError, LookupError, TypeError):
        return ""


def _failed(status: int, why: str) -> int:
    print(f"lyftr-server erase: {why}", file=sys.stderr)
    return status
