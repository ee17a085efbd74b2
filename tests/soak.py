"""python -m tests.soak --minutes N: a server under mixed load, and whether it stays as it was.

After a warm-up at full speed, memory, open files, threads and the write-ahead log must not grow,
readiness must never fail, and nothing that was acknowledged may be missing in the end.
"""

import argparse
import http.client
import itertools
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .faults.clients import Senders, check_answers, check_database, messages
from .postgres import PostgresServer, find_programs, query
from .process import Answer, RunningServer, ServerSocket, as_body, ask, message, post_head

MB = 1 << 20
INTERVAL = 10.0
SENDERS = 6
# Each sender's pause between deliveries, once it is warm.
PAUSE = 0.02


@dataclass(frozen=True)
class Figures:
    """What the process uses at a moment."""

    seconds: float
    rss_mb: float
    files: int
    threads: int
    wal_mb: float
    database_mb: float

    @classmethod
    def of(cls, server: RunningServer, seconds: float) -> "Figures":
        proc = Path(f"/proc/{server.process.pid}")
        status = dict(
            line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line
        )
        wal, database = sizes(server)
        return cls(
            seconds,
            int(status["VmRSS"].split()[0]) / 1024,
            len(list((proc / "fd").iterdir())),
            int(status["Threads"]),
            wal / MB,
            database / MB,
        )


def sizes(server: RunningServer) -> tuple[int, int]:
    """Return the bytes of the write-ahead log, which PostgreSQL keeps for itself, and of all."""
    if isinstance(server.place, str):
        ((size,),) = query(server.place, "SELECT pg_database_size(current_database())")
        return 0, size
    wal = server.place.with_name(server.place.name + "-wal")
    return wal.stat().st_size, server.place.stat().st_size


class Others:
    """Everybody who does not send messages: threads that ask, each in its own way and time."""

    def __init__(self, server: RunningServer, senders: Senders) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()
        self.faults: list[str] = []
        self._server = server
        self._senders = senders
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._go_on, args=each, daemon=True)
            for each in (
                ("ready", 0.5, (200,), self._targets("/health/ready")),
                ("scrape", 2.0, (200,), self._targets("/metrics")),
                ("listing", 0.05, (200,), self._listings()),
                ("search", 0.3, (200,), self._searches()),
                ("deep page", 0.2, (200,), self._deep_pages()),
                ("statistics", 0.2, (200,), self._targets("/stats")),
                ("export", 3.0, (200,), self._targets("/messages.ndjson?from=910001")),
                ("bad signature", 0.05, (401,), self._bad_signatures()),
                ("abort", 0.2, (), self._aborts()),
            )
        ]

    def __enter__(self) -> "Others":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            if thread.is_alive():
                self.faults.append("a request hangs")

    def _go_on(
        self,
        name: str,
        pause: float,
        expected: tuple[int, ...],
        asking: Iterator[Callable[[http.client.HTTPConnection], Answer | None]],
    ) -> None:
        connection = self._server.connect(timeout=30)
        while not self._stop.wait(pause):
            try:
                answer = next(asking)(connection)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self.faults.append(f"{name}: {error!r}")
                continue
            if answer is None:
                continue
            self.answers[name, answer.status] += 1
            if answer.status not in expected:
                self.faults.append(f"{name}: {answer.status} {answer.body[:200]!r}")
        connection.close()

    def _targets(self, *targets: str) -> Iterator[Callable[..., Answer]]:
        for target in itertools.cycle(targets):
            yield lambda connection, target=target: ask(connection, "GET", target)

    def _listings(self) -> Iterator[Callable[..., Answer]]:
        chance = random.Random(1)
        while True:
            limit, sender = chance.choice([1, 10, 50, 100]), chance.randrange(40)
            filters = chance.choice(["", f"&from=91{sender:04}", "&since=2025-01-20T00:00:00Z"])
            yield next(self._targets(f"/messages?limit={limit}{filters}"))

    def _searches(self) -> Iterator[Callable[..., Answer]]:
        return self._targets(
            "/messages?q=alpha",
            "/messages?q=STRASSE",
            "/messages?q=no+such+words",
            "/messages?q=%25",
        )

    def _deep_pages(self) -> Iterator[Callable[..., Answer]]:
        chance = random.Random(2)
        while True:
            offset = chance.randrange(len(self._senders.acknowledged) + 1)
            yield next(self._targets(f"/messages?offset={offset}"))

    def _bad_signatures(self) -> Iterator[Callable[..., Answer]]:
        for n in itertools.count():
            body = as_body(message(f"forged-{n}"))
            yield lambda connection, body=body: ask(
                connection, "POST", "/webhook", body, {"X-Signature": "0" * 64}
            )

    def _aborts(self) -> Iterator[Callable[..., None]]:
        def abort(_connection: object) -> None:
            with ServerSocket(self._server.port) as broken:
                broken.send(post_head(1000, [("X-Signature", "0" * 64)]) + b'{"message_id": "half')

        return itertools.repeat(abort)


def run(server: RunningServer, seconds: float, interval: float = INTERVAL) -> list[str]:
    """Load the server for so long, show its figures; return everything that went wrong."""
    warm = min(60.0, seconds / 3)
    started = time.monotonic()
    figures: list[Figures] = []
    senders = Senders(server, messages("soak"), connections=SENDERS, repeats=0.2)
    with senders, Others(server, senders) as others:
        while (now := time.monotonic() - started) < seconds and server.process.poll() is None:
            time.sleep(max(0.0, min(interval, seconds - now)))
            now = time.monotonic() - started
            if now >= warm:
                # SQLite's page caches grow with the database, up to their limits; so that a leak
                # shows, the database hardly grows from here on.
                senders.pause, senders.repeats = PAUSE, 0.9
            figures.append(Figures.of(server, now))
            show(figures[-1], senders)
    faults = others.faults[:20]
    if senders.answers.keys() != {200} or senders.broken:
        faults.append(f"deliveries: {dict(senders.answers)}, {senders.broken} broken off")
    print("answers:", dict(sorted(others.answers.items())), flush=True)
    try:
        rows = check_database(server.place, senders.acknowledged, senders.attempted)
        check_answers(server, rows)
    except AssertionError as error:
        faults.append(f"the database: {error!r}")
    else:
        print(f"{rows} messages stored, {len(senders.acknowledged)} acknowledged", flush=True)
    return faults + growth([each for each in figures if each.seconds >= warm])


def show(figures: Figures, senders: Senders) -> None:
    print(
        f"{figures.seconds:6.0f} s  rss {figures.rss_mb:6.1f} MB  files {figures.files:3}"
        f"  threads {figures.threads:2}  wal {figures.wal_mb:5.1f} MB"
        f"  database {figures.database_mb:6.1f} MB  acknowledged {len(senders.acknowledged)}",
        flush=True,
    )


def growth(warm: list[Figures]) -> list[str]:
    """Say what grew from the first half of the warm time to its second."""
    if len(warm) < 2:
        return ["too short to tell"]
    first, second = warm[: len(warm) // 2], warm[len(warm) // 2 :]
    faults = []
    for name, factor, slack in (
        ("rss_mb", 1.05, 8.0),
        ("files", 1.0, 3),  # a client that aborts has one for a moment
        ("threads", 1.0, 0),
        ("wal_mb", 1.1, 8.0),
    ):
        before = max(getattr(each, name) for each in first)
        after = max(getattr(each, name) for each in second)
        if after > before * factor + slack:
            faults.append(f"{name} grew from {before:.1f} to {after:.1f}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--folder", type=Path, help="where the database goes")
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    options = parser.parse_args()
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="lyftr-soak-", dir=options.folder)
        folder = Path(stack.enter_context(temporary))
        variables = {}
        if options.engine == "postgres":
            programs = find_programs()
            if programs is None:
                parser.error("PostgreSQL is not installed: apt-get install postgresql")
            postgres = stack.enter_context(PostgresServer(programs, options=""))
            variables = {"DATABASE_URL": stack.enter_context(postgres.database())}
        server = RunningServer(folder, variables=variables)
        try:
            faults = run(server, options.minutes * 60)
            try:
                server.stop()
            except AssertionError as error:
                faults.append(f"the end: {str(error)[-2000:]}")
        finally:
            server.kill()
    for fault in faults:
        print(f"FAULT  {fault}")
    print("soak:", "failed" if faults else "all as it should be")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
