"""The file that says how far forward has come."""

import fcntl
import os
from pathlib import Path


class PlaceFile:
    """A file with the place behind the last message that was taken; one program at a time has it.

    It is replaced whole and synced, the folder too: after a power cut it is the old or the new.
    """

    def __init__(self, path: Path) -> None:
        """OSError when the file cannot be had; BlockingIOError when another program has it."""
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._lock = os.open(path.with_name(f"{path.name}.lock"), flags, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def read(self) -> str | None:
        """Return the place, None when there is no file. ValueError when it holds something else."""
        try:
            place = self._path.read_text("utf-8").strip()
        except FileNotFoundError:
            return None
        if not place or len(place) > 1000 or not place.isprintable():
            raise ValueError(f"{self._path} holds no position")
        return place

    def write(self, place: str) -> None:
        new = self._path.with_name(f"{self._path.name}.new")
        with new.open("w", encoding="utf-8") as file:
            file.write(f"{place}\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
