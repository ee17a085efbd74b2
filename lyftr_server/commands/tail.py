"""lyftr-server tail: show messages as they are stored."""

import argparse
import json
import sys
import unicodedata
from collections.abc import Callable, Iterator
from shutil import get_terminal_size
from typing import Any

from ..config import ConfigError, environment, setting
from . import CommandError, Commands, add
from .address import Address
from .following import Follower

_FILTERS = ("from", "since", "q")

_DETAILS = """\
Follows the running server's /messages/stream: each message that is stored from now on, in that
order. In a pipe it is NDJSON, as export has it; on a terminal a line a message, cut to its width
(without colours when NO_COLOR is set). When the server restarts, it goes on where it was and
misses nothing. READ_TOKEN is sent along when it is set.

exit status: 0 done, which it never is; 1 the server refuses; 2 the command line or the
configuration is wrong; 130 interrupted; 141 nobody reads the output any more."""

_EXAMPLES = """\
  lyftr-server tail
  lyftr-server tail --from +919876543210 --q invoice
  lyftr-server tail --url https://example.com | jq -r .text"""


def add_to(commands: Commands) -> None:
    parser = add(
        commands,
        "tail",
        "show messages as they are stored",
        details=_DETAILS,
        examples=_EXAMPLES,
    )
    parser.add_argument("--from", metavar="NUMBER", default="", help="only this sender's")
    parser.add_argument("--since", metavar="TS", default="", help="only sent at or after this")
    parser.add_argument("--q", metavar="TEXT", default="", help="only with this in their text")
    parser.add_argument(
        "--after", metavar="PLACE", help="begin behind this id of the stream; 0: with the first"
    )
    parser.add_argument(
        "--url", help="where the server is (default: http://HOST:PORT of the configuration)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        server = Address.of_server(options.url)
        token = setting("READ_TOKEN")
        plain = "NO_COLOR" in environment()
    except (ConfigError, ValueError) as error:
        return _failed(2, str(error))
    if sys.stdout is None:  # the caller has closed it
        return _failed(2, "standard output is closed")
    given = vars(options)
    follower = Follower(
        server,
        {name: given[name] for name in _FILTERS},
        token=token,
        place=options.after,
        note=lambda text: print(f"lyftr-server tail: {text}", file=sys.stderr, flush=True),
    )
    write = _for_a_person(plain) if sys.stdout.isatty() else _ndjson
    try:
        for _, row in follower.follow():
            if row is not None:
                write(row)
    except CommandError as error:
        return _failed(1, str(error))
    return 0


def _ndjson(row: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    sys.stdout.buffer.flush()


def _for_a_person(plain: bool) -> Callable[[dict[str, Any]], None]:
    def colour(code: str, text: str) -> str:
        return text if plain else f"\x1b[{code}m{text}\x1b[0m"

    def write(row: dict[str, Any]) -> None:
        day, time = row["ts"][:10], row["ts"][11:19]
        sender = _visible(row["from"])
        room = max(get_terminal_size().columns - 1 - 21 - max(len(sender), 16) - 1, 8)
        text = "no text" if row["text"] is None else _visible(row["text"])
        shown = _cut(text, room)
        parts = (
            colour("2", day),
            time + " ",
            colour("36", sender.ljust(16)),
            colour("2", shown) if row["text"] is None else shown,
        )
        print(" ".join(parts), flush=True)

    return write


def _visible(text: str) -> str:
    """Return the text on one line; what would steer the terminal is shown and not obeyed."""
    return "".join(_letters(text))


def _letters(text: str) -> Iterator[str]:
    for letter in text:
        code = ord(letter)
        if letter in "\r\n\t\u2028\u2029":
            yield " "
        elif code < 0x20:
            yield chr(0x2400 + code)  # its picture
        elif code == 0x7F or unicodedata.category(letter) in ("Cc", "Cs"):
            yield "\ufffd"
        elif unicodedata.bidirectional(letter) in _REORDERING:
            continue
        else:
            yield letter


# Marks that turn around what follows, the rest of the line too.
_REORDERING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def _cut(text: str, columns: int) -> str:
    """Return as much of a text as a terminal shows in so many columns."""
    width = 0
    for place, letter in enumerate(text):
        width += _width(letter)
        if width > columns:
            while place and width > columns - 1:
                place -= 1
                width -= _width(text[place])
            return text[:place] + "…"
    return text


def _width(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _failed(status: int, why: str) -> int:
    print(f"lyftr-server tail: {why}", file=sys.stderr)
    return status
