"""lyftr-server restore: put a backup in the database's place, while no server runs."""

import argparse
import os
import stat
import time
from pathlib import Path

from ..config import ConfigError, database_file
from . import CommandError, Commands, add
from .output import beside, replacing
from .progress import Progress, megabytes

_DETAILS = """\
Copies FILE, checked page by page, to the place of DATABASE_URL's database. Nothing is lost: what
was there stays beside it under another name, with its -wal. Owner and mode stay as they were, so
that the service can use what root restored. It refuses while a server runs.

exit status: 0 done; 1 it could not be done, and the database is what it was; 2 the command line
or the configuration is wrong; 130 interrupted."""

_EXAMPLES = """\
  lyftr-server restore /backup/lyftr.db
  lyftr-server restore "$(ls /backup/lyftr-*.db | tail -1)\""""


def add_to(commands: Commands) -> None:
    parser = add(
        commands,
        "restore",
        "put a backup in the database's place",
        details=_DETAILS,
        examples=_EXAMPLES,
    )
    parser.add_argument("file", metavar="FILE", help="a copy that backup made")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    # Importing the store takes as long as all the rest: the other commands do not wait for it.
    from ..store import StoreError, Unopenable
    from ..store.sqlite.files import lock

    progress = Progress(megabytes)
    held = None
    try:
        database = database_file().resolve()
        if not database.parent.is_dir():
            raise CommandError(f"{database.parent} is no folder")
        held = lock(database)
        owner = _owner(database)
        messages, kept = _restore(Path(options.file), database, owner, progress)
        # Root's lock would keep the service out.
        _own(database.with_name(database.name + "-lock"), owner)
    except (ConfigError, CommandError, Unopenable) as error:
        return _failed(progress, 2, str(error))
    except (StoreError, OSError) as error:
        return _failed(progress, 1, str(error))
    finally:
        progress.clear()
        if held is not None:
            os.close(held)
    print(f"{database}: {messages} messages of {options.file}")
    print(f"what was there before is {kept}" if kept else "nothing was there before")
    return 0


def _restore(
    source_path: Path, database: Path, owner: os.stat_result, progress: Progress
) -> tuple[int, Path | None]:
    """Return how many messages there are now, and the name of what was there before."""
    from ..store.sqlite.offline import DatabaseFile, check_copy, copy

    if source_path.exists() and database.exists() and source_path.samefile(database):
        raise CommandError(f"{source_path} is the database itself")
    kept = None
    # The new file is whole, checked, synced and owned before the old one moves.
    with replacing(database, database=None) as temporary, DatabaseFile(source_path) as source:
        messages = source.run(copy, temporary, progress.part)
        progress.step("checking the copy")
        check_copy(temporary, messages, progress.tick)
        _own(temporary, owner)
        kept = _put_aside(database)
    return messages, kept


def _owner(database: Path) -> os.stat_result:
    """Return what says whose the database is: itself, or its folder when there is none."""
    return (database if database.exists() else database.parent).stat()


def _own(path: Path, owner: os.stat_result) -> None:
    found = path.stat()
    if (found.st_uid, found.st_gid) != (owner.st_uid, owner.st_gid):
        os.chown(path, owner.st_uid, owner.st_gid)
    path.chmod(stat.S_IMODE(owner.st_mode) if stat.S_ISREG(owner.st_mode) else 0o600)


def _put_aside(database: Path) -> Path | None:
    """Rename the database and what SQLite would apply to it; its -shm is made anew."""
    kept = database.with_name(
        f"{database.name}.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    )
    if kept.exists():
        raise CommandError(f"{kept} is there already; try again in a second")
    found = database.exists()
    for name in (*beside(database), database):
        if name.name.endswith("-shm"):
            name.unlink(missing_ok=True)
        elif name.exists():
            name.rename(kept.with_name(kept.name + name.name.removeprefix(database.name)))
    return kept if found else None


def _failed(progress: Progress, status: int, why: str) -> int:
    progress.note(f"lyftr-server restore: {why}")
    return status
