"""An aiosqlite connection that runs a whole function of ours in its thread, in one hop."""

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

import aiosqlite

P = ParamSpec("P")
T = TypeVar("T")

# At DEBUG it logs every call with its arguments, which are the messages.
logging.getLogger("aiosqlite").setLevel(logging.INFO)

# How long a statement waits for another process' lock before it fails.
BUSY_SECONDS = 2.0
# Larger ones gain nothing: what is not in them is in the operating system's.
CACHE_KIB = 16 * 1024
READ_CACHE_KIB = 8 * 1024


class Connection(aiosqlite.Connection):
    """One SQLite connection and its thread.

    Each statement through aiosqlite's own methods is a hop between threads, 60 us under load, and
    an await inside a transaction. `run` takes all of a transaction's statements there at once. It
    rests on aiosqlite's `_execute`; a test fails when that changes.
    """

    async def run(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Return work(connection, *args), called in this connection's thread."""
        execute: Any = self._execute
        result: T = await execute(work, self._conn, *args, **kwargs)
        return result


async def open_writer(path: Path) -> Connection:
    """Open the one read-write connection, of an existing file."""
    return await _open(
        f"file:{quote(str(path))}?mode=rw",
        f"PRAGMA cache_size = -{CACHE_KIB}",
    )


async def open_reader(path: Path) -> Connection:
    """Open a connection that can only read."""
    return await _open(
        f"file:{quote(str(path))}?mode=ro",
        f"PRAGMA cache_size = -{READ_CACHE_KIB}",
        # What a search keeps is small, and there may be no folder for such files.
        "PRAGMA temp_store = MEMORY",
    )


async def _open(uri: str, *pragmas: str) -> Connection:
    # Opened here: of a connector that fails in its thread, aiosqlite leaves the thread to speak to
    # a loop that may be closed by then. cached_statements: one INSERT for each size of a batch.
    db = sqlite3.connect(
        uri,
        uri=True,
        isolation_level=None,
        timeout=BUSY_SECONDS,
        cached_statements=512,
        check_same_thread=False,
    )
    opened: Connection = await Connection(lambda: db, iter_chunk_size=64)  # type: ignore[assignment]
    try:
        for pragma in pragmas:
            await opened.execute_fetchall(pragma)
    except BaseException:
        await opened.close()
        raise
    return opened
