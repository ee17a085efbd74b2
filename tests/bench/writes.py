"""make bench-writes: what a stored message costs the writing thread, and what it writes.

    python -m tests.bench.writes [--rows 1000000] [--messages 25600] [--rounds 5]

Batches of 64 through the store's own function, with a sync each, among ROWS stored messages whose
times are spread over ninety days, or nearly ascend. CPU time is this thread's, which other programs
on the machine change little. The write-ahead log is not emptied meanwhile, so its size is what was
written; each page of it goes to the database once more.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from lyftr_server.records import Delivery, Message
from lyftr_server.store.limits import Limits
from lyftr_server.store.sqlite import schema
from lyftr_server.store.sqlite.connection import CACHE_KIB
from lyftr_server.store.sqlite.insert import insert
from lyftr_server.store.sqlite.tombstones import Tombstones

from ..process import native
from . import bodies, contestants

BATCH = 64
BUILD_BATCH = 4096
WARM_MESSAGES = 6400
ORDERS = ("spread", "ascending")


class Cost(NamedTuple):
    """Of one message: microseconds of CPU, and KiB of the write-ahead log."""

    cpu_us: float
    wal_kib: float


def main() -> int:
    """Measure both orders of time, and print medians with the least and the greatest."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.writes", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--messages", type=int, default=25_600)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="run-", dir=contestants.make_cache()) as name:
        for order in ORDERS:
            full = Path(name) / f"{order}.db"
            _build(full, options.rows, order)
            costs = [
                _measure(full, order, options.rows, options.messages) for _ in range(options.rounds)
            ]
            print(f"times {order}, {options.rows:,} messages stored:", flush=True)
            for what, unit in (("cpu_us", "µs of CPU"), ("wal_kib", "KiB of write-ahead log")):
                values = sorted(getattr(cost, what) for cost in costs)
                middle = statistics.median(values)
                print(f"  {middle:6.1f} ({values[0]:.1f}–{values[-1]:.1f}) {unit}", flush=True)
    return 0


def _messages(namespace: str, count: int, order: str, after: int = 0) -> Iterator[Delivery]:
    chance = random.Random(namespace)
    start = datetime(2025, 1, 1, tzinfo=UTC)
    for number, (message_id, sender, recipient, ts, text) in enumerate(
        bodies.messages(namespace, count), after
    ):
        if order == "ascending":
            at = start + timedelta(seconds=6 * number + chance.randrange(60))
            ts = at.strftime("%Y-%m-%dT%H:%M:%SZ")
        yield native(Message(message_id, sender, recipient, ts, text))


def _build(path: Path, rows: int, order: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        schema.migrate(db)
        db.execute("PRAGMA cache_size = -200000")
        db.execute("BEGIN")
        waiting = _messages("before", rows, order)
        tombstones = Tombstones(db)
        db.execute("COMMIT")
        while batch := list(itertools.islice(waiting, BUILD_BATCH)):
            insert(db, batch, Limits(), tombstones)


def _measure(full: Path, order: str, rows: int, messages: int) -> Cost:
    path = full.with_name("measured.db")
    shutil.copyfile(full, path)
    waiting = _messages("measured", messages + WARM_MESSAGES, order, rows)
    cpu = 0.0
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON").fetchall()
        db.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        tombstones = Tombstones(db)
        for number in itertools.count():
            batch = list(itertools.islice(waiting, BATCH))
            if number * BATCH == WARM_MESSAGES:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                cpu = 0.0
            if not batch:
                break
            began = time.thread_time()
            insert(db, batch, Limits(), tombstones)
            cpu += time.thread_time() - began
        wal_bytes = path.with_name(f"{path.name}-wal").stat().st_size
    return Cost(cpu / messages * 1e6, wal_bytes / messages / 1024)


if __name__ == "__main__":
    sys.exit(main())
