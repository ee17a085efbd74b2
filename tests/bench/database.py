"""Databases: count what is in one, and make a full one for servers to start on."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path


def count_rows(path: Path) -> int:
    """Return how many messages are stored and committed."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        database.execute("PRAGMA busy_timeout = 10000")
        return int(database.execute("SELECT count(*) FROM messages").fetchone()[0])


def settled_rows(path: Path, limit_seconds: float = 30.0) -> int:
    """Count once the server has stored what was still in flight: when two looks agree."""
    deadline = time.monotonic() + limit_seconds
    rows = count_rows(path)
    while time.monotonic() < deadline:
        time.sleep(0.3)
        before, rows = rows, count_rows(path)
        if rows == before:
            break
    return rows
