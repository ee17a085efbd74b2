"""The command line: lyftr-server COMMAND, or python -m lyftr_server COMMAND."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from . import __version__
from .commands import (
    backup,
    erase,
    export,
    forward,
    healthcheck,
    migrate,
    restore,
    send,
    serve,
    sign,
    tail,
    verify,
)
from .commands.output import abandon

_COMMANDS = (
    serve,
    sign,
    send,
    tail,
    forward,
    healthcheck,
    export,
    erase,
    backup,
    restore,
    migrate,
    verify,
)

_DESCRIPTION = """\
Receives signed messages as webhooks, stores each exactly once, and shows them.

  WEBHOOK_SECRET=... lyftr-server serve       run the server
  lyftr-server sign < message.json            sign a body, for curl
  lyftr-server send messages.ndjson           sign and post a file of messages
  lyftr-server tail                           show messages as they are stored
  lyftr-server forward --to https://...       post each stored message to another program
  lyftr-server export > messages.ndjson       write out what is stored
  lyftr-server backup /backup/lyftr.db        copy the database, while the server runs
  lyftr-server restore /backup/lyftr.db       put a copy in its place, while no server runs
  lyftr-server migrate /data/app.db           bring a database over to PostgreSQL

Configuration is by environment variables; see docs/operating.md."""

_EPILOG = """\
exit status: 0 done; 1 it went wrong; 2 the command line or the configuration is wrong;
130 interrupted; 141 nobody reads the output any more."""


class _PrintCompletion(argparse.Action):
    """Print what a shell needs to complete our commands, and end."""

    def __call__(
        self, parser: argparse.ArgumentParser, _options: object, shell: Any, _name: object = None
    ) -> None:
        import shtab  # nobody else waits for it

        print(shtab.complete(parser, shell))
        parser.exit()


def command_line() -> argparse.ArgumentParser:
    """Return the parser of all commands; the man page is made from it too."""
    parser = argparse.ArgumentParser(
        prog="lyftr-server",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lyftr-server {__version__}")
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=("bash", "zsh"),
        help="print a script that completes commands in this shell",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_to(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    try:
        options = command_line().parse_args(arguments)
        status: int = options.run(options)
        if sys.stdout is not None:  # it is None when the caller has closed it
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        abandon()
        return 141
    return status


if __name__ == "__main__":
    sys.exit(main())
