"""The connection that writes, and what its failures mean."""

import sqlite3
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from ..errors import Fatal, StoreError
from .connection import Connection
from .files import Files

P = ParamSpec("P")
T = TypeVar("T")

_FSYNC_FAILED = {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC}


class Writer:
    """Does one thing after the other, each a transaction of its own."""

    def __init__(self, connection: Connection, files: Files) -> None:
        self._connection = connection
        self._files = files

    async def run(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Return work(connection, *args), called in its thread. StoreError; Fatal ends us."""
        try:
            return await self._connection.run(work, *args, **kwargs)
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorcode", None) in _FSYNC_FAILED:
                # The kernel may have dropped the pages that it could not write and call the next
                # sync a success. Only a new process, which reads the files again, knows.
                raise Fatal(str(error)) from error
            raise StoreError(str(error)) from error

    async def probe(self) -> None:
        """Return if a write succeeds now. StoreError, Fatal."""
        await self.run(_probe)
        self.check_files()

    def check_files(self) -> None:
        """Raise StoreError for a commit into a file that nobody can find again: it is not stored.

        After a commit and before any answer; not in the connection's thread, which would wait for
        the GIL after each.
        """
        try:
            self._files.check()
        except OSError as error:
            raise StoreError(str(error)) from error


def _probe(db: sqlite3.Connection) -> None:
    db.execute("UPDATE probe SET at = ?", (time.time_ns() // 1000,))
