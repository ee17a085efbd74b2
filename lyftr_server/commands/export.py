"""lyftr-server export: all stored messages that match, a line of JSON for each."""

import argparse
import sys
from pathlib import Path
from typing import BinaryIO

from ..config import ConfigError, setting
from ..schema import Invalid, MessageQuery, parse_query
from . import CommandError, Commands, add
from .databases import own_file, reading
from .output import replacing
from .progress import Progress

_FILTERS = ("from", "since", "q")

_DETAILS = """\
Reads the database of DATABASE_URL, which the server may be using, and writes nothing to it.
A line is {"message_id": ..., "from": ..., "to": ..., "ts": ..., "text": ...} in UTF-8; lines
come in the order of GET /messages, and the options are its filters.

exit status: 0 done; 1 the database or the output failed; 2 the command line or the
configuration is wrong; 130 interrupted. FILE appears only once it is whole."""

_EXAMPLES = """\
  lyftr-server export > messages.ndjson
  lyftr-server export --from +919876543210 --since 2025-01-01T00:00:00Z --output sender.ndjson
  lyftr-server export --q invoice | jq -r .text"""


def add_to(commands: Commands) -> None:
    parser = add(
        commands, "export", "write stored messages as NDJSON", details=_DETAILS, examples=_EXAMPLES
    )
    parser.add_argument("--from", metavar="NUMBER", default="", help="only this sender's")
    parser.add_argument("--since", metavar="TS", default="", help="only at or after this instant")
    parser.add_argument("--q", metavar="TEXT", default="", help="only with this in their text")
    parser.add_argument(
        "--output",
        metavar="FILE",
        default="-",
        help="instead of standard output; replaced if there",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    # Importing the store takes as long as all the rest: the other commands do not wait for it.
    from ..store import StoreError, Unopenable

    try:
        query = _query(options)
        database: Path | str = setting("DATABASE_URL")
        if options.output == "-" and sys.stdout is None:  # the caller has closed it
            return _failed(1, "standard output is closed")
        if options.output == "-":
            # A progress line among rows on the same terminal would be read by nobody.
            progress = Progress(quiet=sys.stdout.isatty())
            # Not sys.stdout.buffer: under PYTHONUNBUFFERED it may write a part and be content.
            with open(sys.stdout.fileno(), "wb", closefd=False) as file:
                _export(database, query, file, progress)
        else:
            with (
                replacing(Path(options.output), database=own_file(database)) as temporary,
                temporary.open("wb") as file,
            ):
                _export(database, query, file, Progress())
    except Invalid as error:
        return _failed(2, "; ".join(f"--{fault.loc[-1]} {fault.msg}" for fault in error.faults))
    except (ConfigError, CommandError, Unopenable) as error:
        return _failed(2, str(error))
    except BrokenPipeError:
        raise  # main() knows what to do
    except (StoreError, OSError) as error:
        return _failed(1, str(error))
    return 0


def _query(options: argparse.Namespace) -> MessageQuery:
    given = vars(options)
    arguments = {name: [given[name].encode("utf-8", "surrogateescape")] for name in _FILTERS}
    return parse_query(arguments)


def _export(database: Path | str, query: MessageQuery, file: BinaryIO, progress: Progress) -> None:
    done = 0
    try:
        with reading(database) as source:
            source.require_current()
            total = source.count(query) if progress.shown else None
            for chunk in source.rows(query):
                file.write("".join(row.as_line() for row in chunk).encode())
                done += len(chunk)
                progress.part(done, total or 0)
        file.flush()
    finally:
        progress.clear()


def _failed(status: int, why: str) -> int:
    print(f"lyftr-server export: {why}", file=sys.stderr)
    return status
