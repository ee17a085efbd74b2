"""lyftr-server migrate: bring a database in a file over to PostgreSQL."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import ConfigError, setting
from . import Commands, add
from .databases import missing
from .progress import Progress

if TYPE_CHECKING:
    from ..store.moving import Digest, Whole
    from ..store.postgres.offline import DatabaseServer
    from ..store.sqlite.offline import DatabaseFile

_DETAILS = """\
Copies all that FILE has (an SQLite database, or a backup of one) into the empty database of
DATABASE_URL, which must be postgresql://...: messages with their payloads, events, refused bodies,
tombstones and keys. The order of storing stays, so places of tail, forward and the stream, and
cursors, are good on the new one too. No server may use either meanwhile; FILE is not changed.

At the end all rows are read from both and compared, in number and by a hash. What was broken off
goes on where it was when it is called again. A million messages take some minutes.

exit status: 0 everything is there; 1 it is not, call it again; 2 the command line or the
configuration is wrong, or the database has messages of its own; 130 interrupted."""

_EXAMPLES = """\
  DATABASE_URL=postgresql://lyftr@db.example/lyftr lyftr-server migrate /data/app.db
  DATABASE_URL_FILE=/etc/lyftr/database lyftr-server migrate /backup/lyftr.db"""


def add_to(commands: Commands) -> None:
    parser = add(
        commands,
        "migrate",
        "bring an SQLite database over to PostgreSQL",
        details=_DETAILS,
        examples=_EXAMPLES,
    )
    parser.add_argument("file", metavar="FILE", help="an SQLite database of ours")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    # Importing the store takes as long as all the rest: the other commands do not wait for it.
    from ..store import StoreError, Unopenable

    progress = Progress()
    try:
        fits = _migrate(Path(options.file), progress)
    except (ConfigError, Unopenable) as error:
        return _failed(progress, 2, str(error))
    except (StoreError, OSError) as error:
        return _failed(progress, 1, str(error))
    finally:
        progress.clear()
    return 0 if fits else 1


def _migrate(path: Path, progress: Progress) -> bool:
    from ..store.sqlite import outgoing
    from ..store.sqlite.offline import DatabaseFile

    url = setting("DATABASE_URL")
    if isinstance(url, Path):
        raise ConfigError({"DATABASE_URL": "must be where to: postgresql://user@host/database"})
    try:
        from ..store.postgres import incoming
        from ..store.postgres.offline import DatabaseServer
    except ModuleNotFoundError as error:
        raise missing(error) from error
    with outgoing.kept_off(path), DatabaseFile(path) as source, DatabaseServer(url) as target:
        whole = source.run(outgoing.whole)
        target.run(incoming.begin, whole)
        _copy(source, target, whole, progress)
        target.run(incoming.number, whole)
        progress.step("counting and indexing")
        while target.run(incoming.tidy):
            progress.tick()
        target.run(incoming.settle, tick=progress.tick)
        progress.step("comparing all rows")
        return _compare(source, target, progress)


def _copy(
    source: "DatabaseFile", target: "DatabaseServer", whole: "Whole", progress: Progress
) -> None:
    from ..store.moving import PIECE_ROWS, TABLES
    from ..store.postgres import incoming
    from ..store.sqlite import outgoing

    total = sum(whole.counts.values())
    done = sum(target.run(incoming.count, table) for table in TABLES)
    for table in TABLES:
        after = target.run(incoming.last, table)
        while rows := source.run(outgoing.rows, table, after, PIECE_ROWS):
            target.run(incoming.take, table, rows)
            after = rows[-1][0]
            done += len(rows)
            progress.update(done, done / total)


def _compare(source: "DatabaseFile", target: "DatabaseServer", progress: Progress) -> bool:
    """Print what there is of each table, and whether both have the same."""
    from ..store.moving import PIECE_ROWS, TABLES, Digest
    from ..store.postgres import incoming
    from ..store.sqlite import outgoing

    fits = True
    for table in TABLES:
        ours, theirs = Digest(), Digest()
        after = table.first
        while rows := source.run(outgoing.rows, table, after, PIECE_ROWS):
            ours.add(rows)
            after = rows[-1][0]
            progress.tick()
        after = table.first
        while rows := target.run(incoming.rows, table, after, PIECE_ROWS):
            theirs.add(rows)
            after = rows[-1][0]
            progress.tick()
        progress.clear()
        fits &= _told(table.name, ours, theirs)
    return fits


def _told(name: str, ours: "Digest", theirs: "Digest") -> bool:
    if ours == theirs:
        print(f"{name}: {ours}")
        return True
    print(f"{name}: {theirs} instead of {ours}")
    return False


def _failed(progress: Progress, status: int, why: str) -> int:
    progress.clear()
    print(f"lyftr-server migrate: {why}", file=sys.stderr)
    return status
