"""lyftr-server sign: print the signature of a body."""

import argparse
import sys

from ..config import ConfigError, secret
from ..signature import sign
from . import Commands, add


def add_to(commands: Commands) -> None:
    parser = add(
        commands,
        "sign",
        "print the signature of a body",
        details="The body comes from --body, or from standard input byte for byte.\n"
        "The key is WEBHOOK_SECRET or WEBHOOK_SECRET_FILE: as an argument, everybody on this\n"
        "machine could read it.",
        examples="  lyftr-server sign < message.json\n"
        '  printf %s "$BODY" | lyftr-server sign\n'
        '  lyftr-server sign --body \'{"message_id": "m1"}\'',
    )
    parser.add_argument("secret", nargs="?", metavar="SECRET", help="the key")
    parser.add_argument("--body", help="the body, instead of standard input")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        key = options.secret.encode("utf-8", "surrogateescape") if options.secret else secret()
    except ConfigError as error:
        print(f"lyftr-server sign: {error}", file=sys.stderr)
        return 2
    if options.body is None:
        body = sys.stdin.buffer.read()
    else:
        body = options.body.encode("utf-8", "surrogateescape")
    print(sign(key, body))
    return 0
