"""lyftr-server backup: a verified copy of the database, while the server runs."""

import argparse
from pathlib import Path

from ..config import ConfigError, setting
from . import Commands, add
from .output import Refused, replacing
from .progress import Progress, megabytes

_DETAILS = """\
Copies the database of DATABASE_URL, which the server may be using, as it is at one moment.
The copy is one file, checked page by page and synced before it gets its name, and its owner's
alone (mode 0600). Nothing is written to the database itself.

Restoring is: stop the server, remove the database's -wal and -shm files, copy FILE to the
database's place, start the server.

exit status: 0 done; 1 no good copy could be made; 2 the command line or the configuration is
wrong; 130 interrupted. FILE appears only once it is whole."""

_EXAMPLES = """\
  lyftr-server backup /backup/lyftr.db
  lyftr-server backup --force /backup/yesterday.db
  lyftr-server backup "/backup/$(date +%F).db" && lyftr-server verify "/backup/$(date +%F).db\""""


def add_to(commands: Commands) -> None:
    parser = add(commands, "backup", "copy the database", details=_DETAILS, examples=_EXAMPLES)
    parser.add_argument("file", metavar="FILE", help="the copy to make")
    parser.add_argument("--force", action="store_true", help="replace FILE when it is there")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    # Importing the store takes as long as all the rest: the other commands do not wait for it.
    from ..store import StoreError, Unopenable
    from ..store.sqlite.offline import Source, check_copy, copy

    progress = Progress(megabytes)
    try:
        database: Path = setting("DATABASE_URL")
        with (
            replacing(
                Path(options.file), database=database, force=options.force, makes_database=True
            ) as temporary,
            Source(database) as source,
        ):
            messages = source.run(
                copy,
                temporary,
                lambda done, total: progress.update(done, done / total if total else None),
            )
            progress.step("checking the copy")
            check_copy(temporary, messages, progress.tick)
    except (ConfigError, Refused, Unopenable) as error:
        return _failed(progress, 2, str(error))
    except (StoreError, OSError) as error:
        return _failed(progress, 1, str(error))
    finally:
        progress.clear()
    return 0


def _failed(progress: Progress, status: int, why: str) -> int:
    progress.note(f"lyftr-server backup: {why}")
    return status
