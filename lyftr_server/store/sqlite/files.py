"""The database as files: who may use them, what they are called, whether they are still there."""

import contextlib
import fcntl
import os
from pathlib import Path

from ...metrics import Gauge
from ..errors import StoreError, Unusable

_LEAST_BYTES = 512  # the smallest page


def lock(path: Path) -> int:
    """Keep other servers off this database: return a descriptor that holds the lock while open.

    StoreError when another process has it. It goes with the process, however that ends.
    """
    # A file of its own: closing any descriptor of the database would drop SQLite's locks on it.
    name = path.with_name(path.name + "-lock")
    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if isinstance(error, BlockingIOError):
            raise StoreError("another server is using this database") from error
        raise
    return file


def create_private(path: Path) -> None:
    """Create the database readable by its owner only; SQLite gives its WAL the same mode.

    Unusable for a file too short to be one: SQLite would take it for empty, and overwrite it.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    if 0 < os.stat(path).st_size < _LEAST_BYTES:
        raise Unusable("file is not a database")


def make_folder(path: Path) -> None:
    """Create a folder, in folders that exist or are created too; none is lost to a power cut."""
    if not path.exists():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        parent = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


class Files:
    """A database and its WAL, as they were found first."""

    def __init__(self, path: Path) -> None:
        self.database = path
        self.wal = path.with_name(path.name + "-wal")
        self.wal_index = path.with_name(path.name + "-shm")
        self._found: dict[Path, tuple[int, int]] = {}
        self._descriptors: list[int] = []

    def descriptor(self, path: Path) -> int:
        """Return one of our own, for reading, until close()."""
        self._descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        return self._descriptors[-1]

    def close(self) -> None:
        """After the connections: closing any descriptor of a file drops SQLite's locks on it."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def check(self) -> None:
        """Raise StoreError when one of the files is not the one that was there before."""
        for path in (self.database, self.wal):
            try:
                found = os.stat(path)
            except FileNotFoundError as error:
                raise StoreError(f"{path.name} was deleted under the running server") from error
            identity = (found.st_dev, found.st_ino)
            if self._found.setdefault(path, identity) != identity:
                raise StoreError(f"{path.name} was replaced under the running server")

    def database_bytes(self) -> int | None:
        return _size(self.database)

    def wal_bytes(self) -> int | None:
        return _size(self.wal)

    def gauges(self) -> list[Gauge]:
        """Return what the files take, and what their disk has."""
        free, size = self.disk_bytes() or (None, None)
        return [
            Gauge("lyftr_database_bytes", "Size of the database file.", _size(self.database)),
            Gauge("lyftr_wal_bytes", "Size of the write-ahead log.", self.wal_bytes()),
            Gauge("lyftr_disk_free_bytes", "Free on the database's disk.", free),
            Gauge("lyftr_disk_size_bytes", "Size of the database's disk.", size),
        ]

    def disk_bytes(self) -> tuple[int, int] | None:
        """Return (free, size) of the file system that holds the database."""
        try:
            found = os.statvfs(self.database.parent)
        except OSError:
            return None
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def _size(path: Path) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None
