"""make bench-reads: what each kind of read takes with ten thousand messages and with ten million.

Servers over databases of each size run side by side and are asked in turn, over HTTP and one
connection, so that a machine that slows down slows them all. Then each is asked under a load of
deliveries, and what reads and deliveries do to each other is measured on the largest.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench import machine, reads_data, reads_load, reads_queries
from tests.bench.load import LoadError, require_wrk
from tests.bench.reads_queries import Client
from tests.bench.reads_report import Results
from tests.process import SERVE, RunningServer

RESULTS = Path(__file__).with_name("results")
SMALL = 10_000
MIDDLE = 1_000_000


def main() -> int:
    """Run the benchmark; 0 when every bar was reached."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = _options()
    sizes = sorted({SMALL, *([MIDDLE] if options.rows > MIDDLE else []), options.rows})
    with _directory(options.directory) as directory:
        for rows in sizes:
            _prepare(directory / f"{rows}.db", rows)
        results = Results(machine.describe(directory), sizes)
        _ask(directory, results, options.seconds)
        try:
            require_wrk()
        except LoadError as error:
            print(f"bench: no ingestion: {error}", file=sys.stderr)
        else:
            reads_load.measure(directory, results, options.load_seconds)
        reads_load.measure_folds(directory, results)
        reads_load.measure_starts(directory, results)
    print(results.text())
    if options.rows > MIDDLE or options.write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "reads.md").write_text(results.markdown(), encoding="utf-8")
        (RESULTS / "reads.json").write_text(results.json(), encoding="utf-8")
    return 0 if results.passed() else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.reads", description=__doc__)
    parser.add_argument("--rows", type=int, default=MIDDLE, help="messages in the largest database")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each query and size")
    parser.add_argument("--load-seconds", type=int, default=6, help="for each load")
    parser.add_argument("--directory", type=Path, help="keep the databases here, and find them")
    parser.add_argument("--write", action="store_true", help="write results of a small run too")
    return parser.parse_args()


@contextmanager
def _directory(kept: Path | None) -> Iterator[Path]:
    if kept:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="bench-reads-", dir=RESULTS.parent) as directory:
        yield Path(directory)


def _prepare(path: Path, rows: int) -> None:
    if path.exists():
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
            found = db.execute("SELECT sum(n) FROM day_counts").fetchone()
        db.close()
        if found == (rows,):
            print(f"{rows:>10,} messages: found {path}", flush=True)
            return
        path.unlink()
    making = path.with_suffix(".making")
    for suffix in ("", "-wal", "-shm"):
        making.with_name(making.name + suffix).unlink(missing_ok=True)
    reads_data.build(making, rows, lambda line: print(f"{rows:>10,}: {line}", flush=True))
    making.rename(path)


def _ask(directory: Path, results: Results, seconds: float) -> None:
    """Ask a server of each size the same, in turn."""
    with ExitStack() as stack:
        clients = {
            rows: stack.enter_context(_client(directory / f"{rows}.db", directory))
            for rows in results.sizes
        }
        for query in reads_queries.QUERIES:
            found = reads_queries.ask(clients, query, seconds)
            for rows, figures in found.items():
                results.add(query.name, rows, figures)
            print(results.line(query.name), flush=True)
    for rows in results.sizes:
        path = directory / f"{rows}.db"
        for name, figures in reads_queries.inside(path).items():
            results.add(name, rows, figures)
        print(results.line(reads_queries.SCAN), flush=True)


@contextmanager
def _client(path: Path, directory: Path) -> Iterator[Client]:
    folder = directory / f"server-{path.stem}"
    shutil.rmtree(folder, ignore_errors=True)
    variables = {"DATABASE_URL": f"sqlite:///{path}"}
    with RunningServer(folder, command=SERVE, variables=variables) as server:
        yield Client(server.port)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
