"""The database as a file, for commands: read it, copy it and repair it, beside a server or not."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

from ...records import Message
from ...schema import MessageQuery
from ..cursor import Key, key_of
from ..errors import StoreError, Unopenable
from . import listing, reads, schema, search
from .connection import BUSY_SECONDS
from .files import lock
from .sql import Chunks, snapshot
from .verify import figures, problems, rebuild

P = ParamSpec("P")
T = TypeVar("T")

# 4 MiB: Python hears so often from a copy how far it is.
COPY_PAGES = 1024
CHUNK_ROWS = 1000
TICK_SECONDS = 0.2

# Called with how much of how much is done.
Heard = Callable[[int, int], None]


class DatabaseFile:
    """A database that is read, not written, and beside which no file is made.

    SQLite wants a WAL and its index beside a database in WAL mode, and makes them for a reader too.
    While a server has them, readers share them. After a server ended well they are gone: then the
    file is read as one that nobody writes (immutable), and what was read while somebody did is
    read again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None
        self._alone = False
        self._seen: tuple[int, ...] = ()

    def __enter__(self) -> "DatabaseFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Return work(connection, *args); again when a server started meanwhile. StoreError."""
        while True:
            try:
                db = self._open()
                result = work(db, *args, **kwargs)
            except sqlite3.Error as error:
                if self._still_alone():
                    raise StoreError(str(error)) from error
            else:
                if self._still_alone():
                    return result
            self.close()

    @property
    def name(self) -> str:
        return str(self.path)

    def require_current(self) -> None:
        """Raise Unopenable for a schema that this version would migrate first."""
        self.run(require_current)

    def rows(self, query: MessageQuery) -> Iterator[Sequence[Message]]:
        """Yield all rows that match, in the listing's order, some at a time."""
        after: Key | None = None
        exporting: tuple[sqlite3.Connection, Chunks] | None = None

        def go_on(db: sqlite3.Connection) -> list[Message] | None:
            nonlocal exporting
            if exporting is None or exporting[0] is not db:
                exporting = db, reads.export(db, query, CHUNK_ROWS, after)
            return next((found for found in exporting[1] if found), None)

        while found := self.run(go_on):
            yield found
            after = key_of(found[-1])

    def count(self, query: MessageQuery) -> int | None:
        """Return how many rows match; None for a search, which would take as long as its rows."""
        return None if query.q else self.run(listing.count, listing.scope(query))

    def verify(self, deep: bool, tick: Callable[[], None]) -> tuple[int, Sequence[str]]:
        """Return how many messages there are, and all that is wrong, in words. StoreError."""

        def work(db: sqlite3.Connection) -> tuple[int, Sequence[str]]:
            require_current(db)
            found = unhurried(db, tick, _problems, deep)
            return _count(db), found

        return self.run(work)

    def repair(self, say: Callable[[str], None], tick: Callable[[], None]) -> None:
        """Make all anew that is derived from the messages, while no server runs. StoreError."""
        self.close()
        repair(self.path, say, tick)

    def figures(self) -> str:
        """Return how much there is beside the messages, in words. StoreError."""
        return self.run(figures)

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            if not self.path.is_file():
                raise Unopenable(f"{self.path}: there is no such database")
            self._seen = self._state()
            self._alone = not self._companions()
            immutable = "&immutable=1" if self._alone else ""
            self._db = connect(self.path, f"mode=ro{immutable}")
            if not schema.check(self._db):
                raise Unopenable(f"{self.path}: holds nothing; start the server with it once")
        return self._db

    def _still_alone(self) -> bool:
        """Tell whether what was read is what the file held, before and after."""
        return not self._alone or (self._seen == self._state() and not self._companions())

    def _companions(self) -> bool:
        return any(
            self.path.with_name(self.path.name + end).exists() for end in ("-wal", "-journal")
        )

    def _state(self) -> tuple[int, ...]:
        found = self.path.stat()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path.resolve()))}?{mode}",
        uri=True,
        isolation_level=None,
        timeout=BUSY_SECONDS,
        check_same_thread=False,
    )


def require_current(db: sqlite3.Connection) -> None:
    """Raise Unopenable for a schema that this version would migrate first."""
    version = schema.check(db)
    if version < schema.VERSION:
        raise Unopenable(
            f"the database has schema version {version}, and this program reads"
            f" {schema.VERSION}: start the server with it once"
        )


def unhurried(
    db: sqlite3.Connection,
    tick: Callable[[], None],
    work: Callable[Concatenate[sqlite3.Connection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Return work(db, *args), done in a thread: so Ctrl-C is heard while SQLite is busy.

    `tick` is called from time to time meanwhile.
    """
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work, db, *args, **kwargs)
        try:
            while not running.done():
                wait([running], TICK_SECONDS)
                tick()
            return running.result()
        except KeyboardInterrupt:
            # Again and again: it breaks off one statement, and does nothing between two.
            while not running.done():
                db.interrupt()
                wait([running], 0.05)
            raise


def _ignore() -> None:
    pass


def copy(db: sqlite3.Connection, target: Path, heard: Heard) -> int:
    """Copy the database into the file `target`; return how many messages the copy must have.

    In pieces, and all in one read transaction: without it SQLite begins anew whenever a commit
    falls between two pieces, and never ends while messages keep coming. The writer does not wait
    for readers; its WAL alone grows until the copy is there.
    """
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()

    def progress(_status: int, remaining: int, pages: int) -> None:
        heard((pages - remaining) * page_bytes, pages * page_bytes)

    with closing(connect(target, "mode=rw")) as copied, snapshot(db):
        # Nobody reads the copy until it is whole and synced, once.
        copied.execute("PRAGMA journal_mode = OFF").fetchall()
        copied.execute("PRAGMA synchronous = OFF")
        messages = unhurried(db, _ignore, _count)
        db.backup(copied, pages=COPY_PAGES, progress=progress, sleep=0)
    return messages


def check_copy(target: Path, messages: int, tick: Callable[[], None]) -> None:
    """Make a copy one file without a WAL, and hold that it is whole. StoreError."""
    try:
        with closing(connect(target, "mode=rw")) as db:
            (mode,) = db.execute("PRAGMA journal_mode = DELETE").fetchone()
            damage = unhurried(db, tick, _damage)
            found = _count(db)
    except sqlite3.Error as error:
        raise StoreError(f"the copy cannot be read: {error}") from error
    if mode != "delete":
        raise StoreError(f"the copy stays in journal mode {mode}")
    if damage != "ok":
        raise StoreError(f"the copy is damaged: {damage}")
    if found != messages:
        raise StoreError(f"the copy has {found} messages instead of {messages}")


def _count(db: sqlite3.Connection) -> int:
    (messages,) = db.execute("SELECT count(*) FROM messages").fetchone()
    return int(messages)


def _damage(db: sqlite3.Connection) -> str:
    (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    return str(found)


def repair(path: Path, say: Callable[[str], None], tick: Callable[[], None]) -> None:
    """Make all anew that is derived from the messages, while no server runs. StoreError."""
    try:
        with _held(path) as db:
            unhurried(db, tick, rebuild, say)
            say("filling the search index")
            # Not to be broken off by SQLite's interrupt, which FTS5 was seen to crash of while it
            # writes. Each fold is short, so that Ctrl-C is heard between two.
            while search.fold(db):
                tick()
    except sqlite3.Error as error:
        raise StoreError(str(error)) from error


def _problems(db: sqlite3.Connection, deep: bool) -> Sequence[str]:
    return list(problems(db, deep))


@contextmanager
def _held(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a read-write connection, and keep servers off meanwhile. StoreError when one runs."""
    if not path.is_file():
        raise Unopenable(f"{path}: there is no such database")
    held = lock(path.resolve())
    try:
        with closing(connect(path, "mode=rw")) as db:
            require_current(db)
            db.execute("PRAGMA synchronous = FULL")
            yield db
    finally:
        os.close(held)
