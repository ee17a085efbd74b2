"""lyftr-server send: sign the lines of a file and post each to a server's /webhook."""

import argparse
import os
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from ..config import ConfigError, secret, setting
from ..sources import SOURCES
from . import Commands, add
from .address import Address
from .delivery import POLL_SECONDS, Deliveries
from .progress import Progress

CHUNK_BYTES = 1 << 16

_DETAILS = """\
Each line of FILE (- is standard input) is the body of one delivery, signed and posted byte for
byte as it stands, without its newline; blank lines are left out. The key is WEBHOOK_SECRET or
WEBHOOK_SECRET_FILE; with --as it is that sender's: STANDARD_WEBHOOKS_SECRET,
WHATSAPP_APP_SECRET, or TWILIO_AUTH_TOKEN with the server's own PUBLIC_URL.
Lines with one message_id stay in their order; others may overtake.

After 408, 429, any 5xx and no answer a line is sent again, ever more slowly: a repeat is stored
once. When nobody can be reached even then, or the key is wrong (401), the rest is not sent.
Refused lines are listed on standard error, the counts come on standard output:

  created    stored now
  duplicate  stored before, with the same content
  conflict   another message with this message_id was stored before, and stays
  accepted   one of these three, from a server that does not say which
  refused    not stored
  unsent     read, and not sent or not answered

exit status: 0 no line was refused; 1 some were, or were not sent; 2 the command line or the
configuration is wrong; 130 interrupted, and the file may be sent again as a whole."""

_EXAMPLES = """\
  lyftr-server send messages.ndjson
  lyftr-server send --url https://example.com/hooks --concurrency 32 messages.ndjson
  lyftr-server send --as whatsapp bodies.ndjson
  lyftr-server export | WEBHOOK_SECRET=other lyftr-server send --url http://10.0.0.2:8000 -"""

# standard_webhooks is called standard here.
_KINDS = {kind.name.partition("_")[0]: kind for kind in SOURCES}


def add_to(commands: Commands) -> None:
    parser = add(
        commands,
        "send",
        "sign and post the lines of a file",
        details=_DETAILS,
        examples=_EXAMPLES,
    )
    parser.add_argument("file", metavar="FILE", help="NDJSON; - is standard input")
    parser.add_argument(
        "--as",
        dest="sender",
        choices=_KINDS,
        default="native",
        help="whose format the lines have, and who signs them (default: native, our own)",
    )
    parser.add_argument(
        "--url", help="where the server is (default: http://HOST:PORT of the configuration)"
    )
    parser.add_argument(
        "--retries",
        type=_number(0, 1000),
        default=8,
        metavar="N",
        help="how often to send a line again (default: 8, which takes some 16 seconds)",
    )
    parser.add_argument(
        "--concurrency",
        type=_number(1, 256),
        default=8,
        metavar="N",
        help="connections at a time (default: 8)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        kind = _KINDS[options.sender]
        key = secret(kind.variable)
        address = Address.of_server(options.url, kind.route)
        public_url = setting("PUBLIC_URL")
        file = _open(options.file)
    except (ConfigError, ValueError) as error:
        return _failed(f"{error}")
    except OSError as error:
        return _failed(f"{options.file}: {error.strerror}")
    progress = Progress()
    url = f"{public_url}{kind.route}" if public_url else str(address)

    def prove(body: bytes) -> dict[str, str]:
        # When it is sent: the time is a part of some signatures.
        return kind.sign(key, body, url, time.time())

    deliveries = Deliveries(address, prove, retries=options.retries, progress=progress)
    try:
        with file:
            size = _size(file)
            lines = _lines(file, deliveries.stopped, to_the_end=size is not None)
            deliveries.run(lines, size, options.concurrency)
    except OSError as error:  # reading the file; the server's failures are counted
        progress.note(f"lyftr-server send: {options.file}: {error.strerror}")
        return 1
    finally:
        progress.clear()
        print(deliveries.tally.words())
    return 0 if deliveries.tally.whole else 1


def _failed(why: str) -> int:
    print(f"lyftr-server send: {why}", file=sys.stderr)
    return 2


def _number(least: int, most: int) -> Callable[[str], int]:
    def number(value: str) -> int:
        if not value.isascii() or not value.isdigit() or not least <= int(value) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}")
        return int(value)

    return number


def _open(name: str) -> BinaryIO:
    return open(0, "rb", closefd=False) if name == "-" else open(name, "rb")


def _lines(file: BinaryIO, stopped: Callable[[], bool], *, to_the_end: bool) -> Iterator[bytes]:
    """Yield the lines. A pipe that its writer keeps open ends once nothing more will be sent."""
    begun: list[bytes] = []
    while to_the_end or not stopped():
        if not select.select([file], [], [], POLL_SECONDS)[0]:
            continue
        *whole, rest = os.read(file.fileno(), CHUNK_BYTES).split(b"\n")
        if not whole and not rest:
            break
        for line in whole:
            yield b"".join((*begun, line, b"\n"))
            begun.clear()
        begun.append(rest)
    if any(begun):
        yield b"".join(begun)


def _size(file: BinaryIO) -> int | None:
    """Return how much there is to read, when it is a plain file's."""
    found = os.fstat(file.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None
