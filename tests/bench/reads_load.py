"""What reads and deliveries do to each other, measured on real servers and copies of databases."""

from __future__ import annotations

import shutil
import sqlite3
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

from lyftr_server.store.sqlite import connection, schema, search
from tests.bench import reads_data
from tests.bench.bodies import write_bodies
from tests.bench.load import run_wrk
from tests.bench.reads_data import RARE_WORD
from tests.bench.reads_queries import COMMON, QUERIES, Client, figures
from tests.bench.reads_report import Results
from tests.process import SECRET, SERVE, RunningServer, as_body, message

CONNECTIONS = 64
ROUNDS = 2
MOST_A_SECOND = 12_000
UNDER_LOAD = (
    "first page",
    "offset in the middle",
    "busy sender since the middle",
    "/stats",
    "q=1 in 10,000",
    "q=three letters",
)
LONG_SCAN = "/messages?q=%CE%B9"  # a letter that is in the folding of 99: the slowest scan


def measure(directory: Path, results: Results, seconds: int) -> None:
    """Measure reads under ingestion, ingestion by size, and both beside a long scan."""
    bodies = _Bodies(directory, seconds)
    largest = results.sizes[-1]
    for rows in results.sizes:
        with _copy(directory, rows) as path:
            _reads_under_load(path, rows, bodies, results)
            if rows == largest:
                _ingestion(path, bodies, results)
                _beside_a_scan(path, results, seconds)
                _beside_dear_searches(path, rows, results, seconds)


class _Bodies:
    """Files of signed bodies, each for one load: no id is ever sent twice."""

    def __init__(self, directory: Path, seconds: int) -> None:
        self.seconds = seconds
        self._prefix = directory / "bodies"
        self._numbers = count()

    def load(self, server: RunningServer) -> float:
        """Send as much as the server takes for some seconds; return messages a second."""
        namespace = f"reads{time.time_ns():x}{next(self._numbers)}"
        write_bodies(self._prefix, namespace, MOST_A_SECOND * self.seconds, SECRET, 1)
        load = run_wrk(server.port, self._prefix, self.seconds, CONNECTIONS, 1)
        if load.refused or load.broken or load.ran_out:
            raise RuntimeError(f"the load does not count: {load}")
        return load.answers / load.seconds


@contextmanager
def _copy(directory: Path, rows: int) -> Iterator[Path]:
    path = directory / "load.db"
    shutil.copyfile(directory / f"{rows}.db", path)
    try:
        yield path
    finally:
        for file in directory.glob("load.db*"):
            file.unlink()


@contextmanager
def _server(path: Path) -> Iterator[RunningServer]:
    folder = path.parent / "server-load"
    shutil.rmtree(folder, ignore_errors=True)
    variables = {"DATABASE_URL": f"sqlite:///{path}"}
    with RunningServer(folder, command=SERVE, variables=variables) as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


def _reads_under_load(path: Path, rows: int, bodies: _Bodies, results: Results) -> None:
    with _server(path) as server:
        client = Client(server.port)
        queries = [query for query in QUERIES if query.name in UNDER_LOAD]
        taken: dict[str, list[float]] = {query.name: [] for query in queries}
        for query in queries:
            client.get(query.path(rows, rows))
        loading = threading.Thread(target=bodies.load, args=(server,))
        loading.start()
        while loading.is_alive():
            for query in queries:
                taken[query.name].append(client.get(query.path(rows, rows))[0])
        loading.join()
    for name, times in taken.items():
        results.add(f"{name}, under load", rows, figures(times))
        print(results.line(f"{name}, under load"), flush=True)


def _ingestion(full: Path, bodies: _Bodies, results: Results) -> None:
    """Let an empty database, a full one, and one that derives nothing take messages in turn."""
    for _ in range(ROUNDS):
        for name in ("empty", "full", "plain"):
            path = full if name == "full" else full.with_name(f"load.db-{name}")
            if name == "plain":
                _make_plain(path)
            with _server(path) as server:
                results.rates.setdefault(name, []).append(bodies.load(server))
            if name != "full":
                for file in path.parent.glob(path.name + "*"):
                    file.unlink()
            print(f"ingestion, {name}: {results.rates[name][-1]:,.0f}/s", flush=True)


def _make_plain(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        schema.migrate(db)
        db.execute("DROP TRIGGER messages_in_order")
        # Above every seq: nothing is ever left for the counts and the index.
        db.execute("UPDATE counted SET seq = 1 << 40")
        db.execute("UPDATE search_state SET watermark = 1 << 40")


def _beside_a_scan(path: Path, results: Results, seconds: int) -> None:
    """Compare deliveries and health checks of an idle server with those beside a long scan."""
    with _server(path) as server:
        scanning = Client(server.port)
        stop = threading.Event()
        for state in ("idle", "beside a scan"):
            scans = threading.Thread(target=_search, args=(scanning, LONG_SCAN, stop))
            if state != "idle":
                scans.start()
                time.sleep(0.5)
            posts, lives = [], []
            until = time.monotonic() + 2 * seconds
            client = Client(server.port)
            while time.monotonic() < until:
                body = as_body(message(f"scan{time.time_ns()}"))
                posts.append(client.post(body, SECRET))
                lives.append(client.get("/health/live")[0])
                time.sleep(0.002)
            results.waits[f"POST /webhook, {state}"] = figures(posts)
            results.waits[f"/health/live, {state}"] = figures(lives)
            stop.set()
            if state != "idle":
                scans.join()
            stop.clear()


def _beside_dear_searches(path: Path, rows: int, results: Results, seconds: int) -> None:
    """Ask for what is found at once while five others ask for what costs the most."""
    dear = [
        LONG_SCAN,
        "/messages?q=e",
        *(f"/messages?q={COMMON}&offset={rows // part}" for part in (8, 12, 16)),
    ]
    with _server(path) as server:
        client, stop = Client(server.port), threading.Event()
        others = [
            threading.Thread(target=_search, args=(Client(server.port), search, stop))
            for search in dear
        ]
        for other in others:
            other.start()
        until = time.monotonic() + seconds
        times = []
        while time.monotonic() < until:
            times.append(client.get(f"/messages?q={RARE_WORD}")[0])
        stop.set()
        for other in others:
            other.join()
    results.waits["a cheap search beside five dear ones"] = figures(times)


def _search(client: Client, path: str, stop: threading.Event) -> None:
    while not stop.is_set():
        client.get(path)


def measure_folds(directory: Path, results: Results) -> None:
    """Time each bulk move of the watermark over 20,000 new rows of the largest database."""
    times = []
    with _copy(directory, results.sizes[-1]) as path, closing(_writer(path)) as db:
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            reads_data.messages(20_000, seed=2),
        )
        db.execute("COMMIT")
        moved = 1
        while moved:
            start = time.perf_counter()
            moved = search.fold(db)
            times.append((time.perf_counter() - start) * 1000)
    results.waits["a bulk move of the watermark"] = figures(times)
    results.longest_fold_ms = max(times)


def _writer(path: Path) -> sqlite3.Connection:
    """Open a database as the server's writer has it."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA cache_size = -{connection.CACHE_KIB}")
    return db


def measure_starts(directory: Path, results: Results) -> None:
    """Time starts with the largest database and with none."""
    path = directory / f"{results.sizes[-1]}.db"
    full, none = [], []
    for _ in range(3):
        with _server(path) as server:
            full.append(server.start_seconds)
        empty = directory / "load.db-start"
        with _server(empty) as server:
            none.append(server.start_seconds)
        for file in directory.glob("load.db-start*"):
            file.unlink()
    results.starts = (statistics.median(none), statistics.median(full))
