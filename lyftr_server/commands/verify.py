"""lyftr-server verify: is a database whole, and does all fit that is derived from its messages?"""

import argparse
from pathlib import Path

from ..config import ConfigError, setting
from . import Commands, add
from .databases import own_file, reading
from .progress import Progress

_DETAILS = """\
Checks SQLite's own structures, recounts every count that is kept beside the messages, looks
whether anything is stored that a tombstone should have kept out, and compares the search index
with the texts. Without FILE it checks the database of DATABASE_URL,
which the server may be using. Nothing is written; SQLite's temporary files go to SQLITE_TMPDIR.
What is wrong comes on standard output, a line for each. All is read as it is at one moment, and
while that takes, a busy server's WAL grows: rather verify a backup then.

--repair makes the counts and the search index anew from the messages; no server must run.
It cannot mend a damaged file: restore a backup then.

On PostgreSQL it recounts, and compares the index, the folded texts and the order of storing with
the messages; the server checks its own structures (pg_amcheck).

exit status: 0 everything fits; 1 it does not, or could not be checked; 2 the command line or
the configuration is wrong; 130 interrupted."""

_EXAMPLES = """\
  lyftr-server verify
  lyftr-server verify /backup/lyftr.db
  lyftr-server verify --quick && echo counts and pages fit
  systemctl stop lyftr-server && lyftr-server verify --repair"""


def add_to(commands: Commands) -> None:
    parser = add(commands, "verify", "check a database", details=_DETAILS, examples=_EXAMPLES)
    parser.add_argument("file", metavar="FILE", nargs="?", help="a backup, or any database of ours")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="leave out the search index, which takes most of the time",
    )
    parser.add_argument(
        "--repair", action="store_true", help="make anew what is derived, then check"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    # Importing the store takes as long as all the rest: the other commands do not wait for it.
    from ..store import StoreError, Unopenable

    progress, name = Progress(), ""
    try:
        place: Path | str = Path(options.file) if options.file else setting("DATABASE_URL")
        name = str(own_file(place) or "")
        with reading(place) as database:
            name = database.name
            if options.repair:
                database.repair(progress.step, progress.tick)
            progress.step("checking")
            messages, problems = database.verify(not options.quick, progress.tick)
            others = database.figures()
    except (ConfigError, Unopenable) as error:
        return _failed(progress, 2, str(error))
    except (StoreError, OSError) as error:
        return _failed(progress, 1, f"{name}: {error}")
    finally:
        progress.clear()
    for problem in problems:
        print(f"{name}: {problem}")
    if not problems:
        print(f"{name}: {messages} messages; everything fits")
        print(f"{name}: {others}")
    return 1 if problems else 0


def _failed(progress: Progress, status: int, why: str) -> int:
    progress.note(f"lyftr-server verify: {why}")
    return status
