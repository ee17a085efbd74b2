"""Does a piece of the store's work and dies at statement number N: python -m tests.store.dying."""

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

from lyftr_server.store.sqlite import schema, search


class Dying(sqlite3.Connection):
    """A connection that kills its process before its n-th statement."""

    left = 0

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(*arguments)


WORK: dict[str, Callable[[sqlite3.Connection], object]] = {
    "migrate": schema.migrate,
    "fold": search.fold,
}


def main(path: str, work: str, n: str) -> None:
    db = sqlite3.connect(path, isolation_level=None, factory=Dying)
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.left = int(n)
    WORK[work](db)
    db.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
