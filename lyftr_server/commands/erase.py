"""lyftr-server erase: make a running server erase all of a person's messages."""

import argparse
import json
import sys
from http.client import HTTPException
from urllib.parse import quote

from ..config import ConfigError, setting
from . import Commands, add
from .address import Address, reason, words

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
        address = Address.of_server(options.url)
        token = setting("ADMIN_TOKEN")
        if token is None:
            raise ConfigError({"ADMIN_TOKEN": "must be set to the server's"})
    except (ConfigError, ValueError) as error:
        return _failed(2, str(error))
    connection = address.connection(None)  # an erasure may take minutes
    method = "GET" if options.dry_run else "DELETE"
    path = f"{address.path}/people/{quote(options.number, safe='')}"
    try:
        connection.request(method, path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, HTTPException) as error:
        return _failed(1, words(error))
    finally:
        connection.close()
    if answer.status != 200:
        return _failed(1, f"{answer.status} {reason(answer, content)}")
    counts = ", ".join(f"{name} {n}" for name, n in json.loads(content).items())
    print(f"{'would erase' if options.dry_run else 'erased'}: {counts}")
    return 0


def _failed(status: int, why: str) -> int:
    print(f"lyftr-server erase: {why}", file=sys.stderr)
    return status
