"""What deliveries feel of what goes on beside them, each against the same load without it.

    python -m tests.bench.beside [--rounds 3] [--seconds 8] [--only refused,expiring,buried]

refused: a flood of signed bodies that are refused and kept takes at most a tenth of the rate.
expiring: while ROWS messages expire, the p99 stays within 1.5 of that with the same rows kept.
buried: beside TOMBSTONES ids that must not come back, the rate is what it was (within 3 %).
Only ratios within one round mean anything.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from lyftr_server.store.sqlite.tombstones import HASH_BYTES
from tests.bench import contestants, database
from tests.bench.bodies import sign, write_bodies
from tests.bench.contestants import SECRET
from tests.bench.load import Load, require_wrk, run_wrk
from tests.bench.process import Server
from tests.ports import free_port

OURS = next(each for each in contestants.line_up(0) if each.name == "ours")
FLOODERS = 8
# So long rows must have been stored before they expire beside the load, and not what it brings.
SPARE_SECONDS = 60.0
BULK = 100_000


class Bar(NamedTuple):
    """A case, what it is held against, which ratio, and what that may be."""

    case: str
    beside: str
    ratio: Callable[[Load, Load], float]
    words: str
    holds: Callable[[float], bool]


def _rate(load: Load, base: Load) -> float:
    return (load.answers / load.seconds) / (base.answers / base.seconds)


def _p99(load: Load, base: Load) -> float:
    return load.p99_ms / base.p99_ms


BARS = (
    Bar("refused", "alone", _rate, "of the rate (at least 0.90)", lambda x: x >= 0.9),
    Bar("expiring", "kept", _p99, "times the p99 (at most 1.5)", lambda x: x <= 1.5),
    Bar("buried", "alone", _rate, "of the rate (at least 0.97)", lambda x: x >= 0.97),
)


class Bench:
    """Databases that are made once, and a load on copies of them."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._built_at = 0.0
        self._runs = 0

    def prepare(self, cases: set[str]) -> None:
        database.build_database(self._folder / "alone.db", 0)
        if "buried" in cases:
            shutil.copy(self._folder / "alone.db", self._folder / "buried.db")
            bury(self._folder / "buried.db", self._options.tombstones)
        if "expiring" in cases:
            database.build_database(self._folder / "kept.db", self._options.rows)
            shutil.copy(self._folder / "kept.db", self._folder / "expiring.db")
        self._built_at = time.time()
        shutil.copy(self._folder / "alone.db", self._folder / "refused.db")

    def run(self, case: str) -> Load:
        """Return what a load saw of a server in this case."""
        options = self._options
        self._runs += 1
        home = self._folder / f"run{self._runs}"
        home.mkdir()
        path = contestants.database_path(home)
        shutil.copy(self._folder / f"{case}.db", path)
        write_bodies(home / "good", f"b{self._runs}", OURS.ceiling * options.seconds, SECRET, 1)
        port = free_port()
        environment = OURS.environment(home, port)
        if case == "expiring":
            wait = self._built_at + options.seconds + SPARE_SECONDS - time.time()
            time.sleep(max(0.0, wait))
            environment["RETENTION_DAYS"] = f"{(time.time() - self._built_at) / 86_400:.9f}"
        elif case == "refused":
            write_refused(home / "bad", OURS.ceiling * options.seconds)
        os.sync()
        before = database.count_rows(path)
        with Server(OURS.prepare(), environment, home, port) as server:
            flood = threading.Thread(
                target=run_wrk, args=(port, home / "bad", options.seconds, FLOODERS, 1)
            )
            if case == "refused":
                flood.start()
            load = run_wrk(port, home / "good", options.seconds, options.connections, 1)
            if case == "refused":
                flood.join()
            server.check_alive()
        left = database.count_rows(path) - load.answers
        print(
            f"{case:9} {load.answers / load.seconds:8,.0f} a second, p99 {load.p99_ms:6.1f} ms;"
            f" of {before:,} rows {max(0, left):,} are left",
            flush=True,
        )
        shutil.rmtree(home)
        return load


def write_refused(path: Path, count: int) -> None:
    """Write lines for wrk: rightly signed, and without a number."""
    with open(f"{path}.0", "wb", 1 << 20) as file:
        for n in range(count):
            body = b'{"message_id":"refused-%d","text":"%b"}' % (n, b"x" * 200)
            file.write(sign(SECRET, body) + body + b"\n")


def bury(path: Path, count: int) -> None:
    """Bury so many ids, which nobody will send."""
    until = int(time.time()) + 86_400
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        for start in range(0, count, BULK):
            hashes = sorted(os.urandom(HASH_BYTES) for _ in range(min(BULK, count - start)))
            db.execute("BEGIN")
            db.executemany("INSERT INTO tombstones VALUES (?, ?)", ((h, until) for h in hashes))
            db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.beside", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rows", type=int, default=1_000_000, help="messages that expire")
    parser.add_argument("--tombstones", type=int, default=10_000_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--only", default="refused,expiring,buried")
    options = parser.parse_args()
    print(require_wrk(), flush=True)
    bars = [bar for bar in BARS if bar.case in options.only.split(",")]
    ratios: dict[str, list[float]] = {bar.case: [] for bar in bars}
    with tempfile.TemporaryDirectory(dir=contestants.make_cache()) as name:
        bench = Bench(options, Path(name))
        bench.prepare(set(ratios))
        for _ in range(options.rounds):
            loads = {base: bench.run(base) for base in dict.fromkeys(bar.beside for bar in bars)}
            for bar in bars:
                ratios[bar.case].append(bar.ratio(bench.run(bar.case), loads[bar.beside]))
    missed = False
    for bar in bars:
        median = statistics.median(ratios[bar.case])
        missed = missed or not bar.holds(median)
        print(f"{bar.case}: {median:.2f} {bar.words}{'' if bar.holds(median) else ': MISSED'}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
