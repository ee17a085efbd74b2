"""lyftr-server backup: a verified copy of the database, while the server runs."""

import argparse
import sys
import time
from pathlib import Path

from ..config import ConfigError, database_file
from . import CommandError, Commands, add
from .output import replacing
from .progress import Progress, megabytes

KEPT = "lyftr-"

_DETAILS = """\
Copies the database of DATABASE_URL, which the server may be using, as it is at one moment.
The copy is one file, checked page by page and synced before it gets its name, and its owner's
alone (mode 0600). Nothing is written to the database itself.

With --keep N, FILE is a folder: the copy gets the time for a name there, and of such copies the
newest N stay. `lyftr-server restore` puts a copy back.

exit status: 0 done; 1 no good copy could be made; 2 the command line or the configuration is
wrong; 130 interrupted. FILE appears only once it is whole."""

_EXAMPLES = """\
  lyftr-server backup /backup/lyftr.db
  lyftr-server backup --keep 7 /backup
  lyftr-server backup --force /backup/yesterday.db
  lyftr-server backup "/backup/$(date +%F).db" && lyftr-server verify "/backup/$(date +%F).db\""""


def add_to(commands: Commands) -> None:
    parser = add(commands, "backup", "copy the database", details=_DETAILS, examples=_EXAMPLES)
    parser.add_argument("file", metavar="FILE", help="the copy to make")
    parser.add_argument(
        "--keep", type=_count, metavar="N", help="FILE is a folder, where the newest N copies stay"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE when it is there")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    # Importing the store takes as long as all the rest: the other commands do not wait for it.
    from ..store import StoreError, Unopenable
    from ..store.sqlite.offline import DatabaseFile, check_copy, copy

    progress = Progress(megabytes)
    target = Path(options.file)
    if options.keep:
        target /= time.strftime(f"{KEPT}%Y%m%dT%H%M%SZ.db", time.gmtime())
    try:
        database: Path = database_file()
        with (
            replacing(
                target, database=database, force=options.force, makes_database=True
            ) as temporary,
            DatabaseFile(database) as source,
        ):
            messages = source.run(copy, temporary, progress.part)
            progress.step("checking the copy")
            check_copy(temporary, messages, progress.tick)
    except (ConfigError, CommandError, Unopenable) as error:
        return _failed(progress, 2, str(error))
    except (StoreError, OSError) as error:
        return _failed(progress, 1, str(error))
    finally:
        progress.clear()
    print(f"{target}: {messages} messages, {target.stat().st_size / 1e6:,.1f} MB")
    return _thin_out(target.parent, options.keep) if options.keep else 0


def _thin_out(folder: Path, keep: int) -> int:
    """Remove all but the newest copies that have a time for a name."""
    for old in sorted(folder.glob(f"{KEPT}????????T??????Z.db"))[:-keep]:
        try:
            old.unlink()
        except OSError as error:
            print(f"lyftr-server backup: {old}: {error.strerror}", file=sys.stderr)
            return 1
        print(f"{old}: removed")
    return 0


def _count(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 10000:
        raise argparse.ArgumentTypeError("must be a whole number from 1 to 10000")
    return int(value)


def _failed(progress: Progress, status: int, why: str) -> int:
    progress.note(f"lyftr-server backup: {why}")
    return status
