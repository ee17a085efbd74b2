"""lyftr-server healthcheck: ask a running server whether it is ready."""

import argparse
import sys
from http.client import HTTPConnection, HTTPException

from ..config import ConfigError
from . import Commands, add, server_address, server_url

PATH = "/health/ready"


def add_to(commands: Commands) -> None:
    parser = add(
        commands,
        "healthcheck",
        "exit 0 when the server is ready",
        details="Asks /health/ready on HOST and PORT; for containers, which have no curl.",
        examples="  lyftr-server healthcheck\n  PORT=9000 lyftr-server healthcheck --timeout 1",
    )
    parser.add_argument(
        "--timeout", type=_patience, default=5, metavar="SECONDS", help="patience (default: 5)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        host, port = server_address()
    except ConfigError as error:
        print(f"lyftr-server healthcheck: {error}", file=sys.stderr)
        return 2
    connection = HTTPConnection(host, port, timeout=options.timeout)
    try:
        connection.request("GET", PATH)
        answer = connection.getresponse()
        print(answer.read().decode("utf-8", "replace").rstrip())
    except (OSError, HTTPException) as error:
        print(f"lyftr-server healthcheck: {server_url()}{PATH}: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    return 0 if answer.status == 200 else 1


def _patience(value: str) -> float:
    seconds = float(value)
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 3600")
    return seconds
