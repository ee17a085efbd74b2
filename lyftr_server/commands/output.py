"""Files that are whole or not there: written under another name, synced, then renamed."""

import os
import secrets
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import CommandError


@contextmanager
def replacing(
    target: Path, *, database: Path | None, force: bool = True, makes_database: bool = False
) -> Iterator[Path]:
    """Yield a new file's name, which becomes `target`'s when the block ends well.

    The new file is the owner's alone. Whatever ends the block otherwise takes it away, SIGTERM
    too. `database`: what must not be replaced. `makes_database`: what SQLite would apply to one of
    this name goes away with the old file.
    CommandError; OSError.
    """
    target = target.resolve()  # through a link, to what it points at
    left = tuple(beside(target)) if makes_database else ()
    _check(target, database, force, left)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield temporary
        _sync(temporary)
        _check(target, database, force, left)
        for each in left:
            each.unlink(missing_ok=True)
        temporary.rename(target)
        _sync(target.parent)
    finally:
        # SQLite's own files beside a database that is being made, too.
        for suffix in ("", "-journal", "-wal", "-shm"):
            temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)
        signal.signal(signal.SIGTERM, previous)


def beside(target: Path) -> Iterator[Path]:
    """Yield the names of what SQLite would apply to a database of this name."""
    for suffix in ("-journal", "-wal", "-shm"):
        yield target.with_name(target.name + suffix)


def _check(target: Path, database: Path | None, force: bool, left: Sequence[Path]) -> None:
    if database is not None:
        database = database.resolve()
        own = {database.with_name(database.name + end) for end in ("", "-wal", "-shm", "-lock")}
        if target in own:
            raise CommandError(f"{target} belongs to the database itself")
    if not target.parent.is_dir():
        raise CommandError(f"{target.parent} is no folder")
    for each in left:
        if each.exists() and not force:
            raise CommandError(f"{each} is there, of another database; --force removes it")
    if not target.exists():
        return
    if not target.is_file():
        raise CommandError(f"{target} is there and is no plain file")
    if database is not None and database.exists() and target.samefile(database):
        raise CommandError(f"{target} is the database itself")
    if not force:
        raise CommandError(f"{target} is there already; --force replaces it")


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def abandon() -> None:
    """Forget what standard output still has to say, and say nothing more: nobody reads it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
