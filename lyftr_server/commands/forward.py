"""lyftr-server forward: post each stored message to another program, signed, at least once."""

import argparse
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType

from ..config import ConfigError, setting
from . import CommandError, Commands, add
from .address import Address
from .following import BEGINNING, Follower
from .handing import POLL_SECONDS, Hands
from .place_file import PlaceFile
from .progress import Progress

_DETAILS = """\
Follows the running server and posts each message to URL as JSON, signed by Standard Webhooks
(webhook-id, webhook-timestamp, webhook-signature; the key is FORWARD_SECRET, base64 with or
without whsec_). Messages of one sender come in the order of storing. One that is not answered by
2xx is sent again, ever more slowly, for ever or for --patience; an answer 410 ends it all.
Redirects are not followed.

FILE keeps the place behind the last message that was taken: it moves only behind an answer 2xx
and is synced, so that a message comes at least once, whatever is killed. A repeat has the same
webhook-id. Without FILE it begins with what is stored from then on, or with the first
message (--all).

exit status: 0 ended by SIGTERM, or by the target (410); 1 the server refuses, or patience is over;
2 the command line or the configuration is wrong; 130 interrupted, and it may go on later."""

_EXAMPLES = """\
  lyftr-server forward --to https://example.com/hooks
  lyftr-server forward --to http://10.0.0.2:9000/in --position /var/lib/lyftr/crm.position --all
  lyftr-server forward --to http://127.0.0.1:9000 --from +919876543210 --patience 3600"""

_FILTERS = ("from", "since", "q")


def add_to(commands: Commands) -> None:
    parser = add(
        commands,
        "forward",
        "post each stored message to another program",
        details=_DETAILS,
        examples=_EXAMPLES,
    )
    parser.add_argument("--to", required=True, metavar="URL", help="where messages are posted")
    parser.add_argument(
        "--position",
        metavar="FILE",
        default="forward.position",
        help="what is done up to now (default: forward.position)",
    )
    parser.add_argument(
        "--all", action="store_true", help="without FILE, begin with the first stored message"
    )
    parser.add_argument(
        "--patience",
        type=_seconds,
        metavar="SECONDS",
        help="how long to try one message (default: for ever)",
    )
    parser.add_argument("--from", metavar="NUMBER", default="", help="only this sender's")
    parser.add_argument("--since", metavar="TS", default="", help="only sent at or after this")
    parser.add_argument("--q", metavar="TEXT", default="", help="only with this in their text")
    parser.add_argument(
        "--url", help="where the server is (default: http://HOST:PORT of the configuration)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    progress = Progress()
    try:
        key: bytes | None = setting("FORWARD_SECRET")
        if key is None:
            raise ConfigError({"FORWARD_SECRET": "must be set to the key to sign with"})
        token = setting("READ_TOKEN")
        server = Address.of_server(options.url)
        receiver = Address.of_receiver(options.to)
        position = PlaceFile(Path(options.position))
        place = position.read()
    except BlockingIOError:
        return _failed(2, f"{options.position}: another forward is using it")
    except (ConfigError, ValueError) as error:
        return _failed(2, str(error))
    except OSError as error:
        return _failed(2, f"{options.position}: {error.strerror}")
    if place is None and options.all:
        place = BEGINNING
    note = _Notes(progress)
    hands = Hands(receiver, key, patience_seconds=options.patience, note=note)
    given = vars(options)
    follower = Follower(
        server,
        {name: given[name] for name in _FILTERS},
        token=token,
        place=place,
        note=note,
        stop=hands.stop,
    )
    return _forward(follower, hands, position, progress)


def _forward(follower: Follower, hands: Hands, position: PlaceFile, progress: Progress) -> int:
    """Move the position as messages are taken, until something ends it; return the status."""
    ended = False

    def end(_number: int, _frame: FrameType | None) -> None:
        nonlocal ended
        ended = True
        hands.stop.set()

    def read() -> None:
        try:
            for place, row in follower.follow():
                hands.put(place, row)
        except CommandError as error:
            hands.failed = str(error)
        except Exception as error:  # our own mistake must not look like a server that is silent
            hands.failed = f"{type(error).__name__}: {error}"
        hands.stop.set()

    previous = signal.signal(signal.SIGTERM, end)
    # A daemon: it may be waiting for the server's next word.
    threading.Thread(target=read, daemon=True).start()
    try:
        while not hands.stop.wait(POLL_SECONDS):
            _keep(hands, position)
            progress.update(hands.taken)
    except OSError as error:
        return _failed(1, f"the position cannot be kept: {error.strerror}")
    finally:
        hands.stop.set()
        signal.signal(signal.SIGTERM, previous)
        progress.clear()
        with suppress(OSError):  # at worst some messages come once more
            _keep(hands, position)
    if hands.gone:
        print("lyftr-server forward: the target wants no more (410)", file=sys.stderr)
    elif not ended and hands.failed is not None:
        return _failed(1, hands.failed)
    return 0


def _keep(hands: Hands, position: PlaceFile) -> None:
    place = hands.advance()
    if place is not None:
        position.write(place)


class _Notes:
    """Lines for the operator, from any thread."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()

    def __call__(self, text: str) -> None:
        with self._lock:
            self._progress.note(f"lyftr-server forward: {text}")


def _seconds(value: str) -> float:
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise argparse.ArgumentTypeError("must be a whole number of seconds")
    return float(value)


def _failed(status: int, why: str) -> int:
    print(f"lyftr-server forward: {why}", file=sys.stderr)
    return status
