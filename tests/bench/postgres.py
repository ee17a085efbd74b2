"""make bench-postgres: what PostgreSQL costs, beside SQLite, in one run.

    python -m tests.bench.postgres [--rounds 3] [--seconds 6] [--connections 64]

Everything is on this machine, with fsync on: the database, our servers and the load share its
cores. The connections are shared out over the servers; with several the slowest p99 counts.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..cluster import Cluster
from ..ports import free_port
from ..postgres import PostgresServer, find_programs, query
from . import contestants, machine
from .bodies import write_bodies
from .load import Load, LoadError, require_wrk, run_wrk
from .process import Server

CEILING = 20_000
WARM_SECONDS = 1
# The name of a case, how many of our servers it has, and where their database is.
CASES = (
    ("SQLite", 1, "sqlite"),
    ("PostgreSQL", 1, "single"),
    ("PostgreSQL, two servers", 2, "single"),
    ("PostgreSQL, four servers", 4, "single"),
    ("PostgreSQL, ANY 1 of two standbys", 1, "cluster"),
)


def main() -> int:
    """Run the benchmark; 0 when each answer 200 was one row."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.postgres", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    programs = find_programs()
    try:
        require_wrk()
    except LoadError as error:
        print(f"bench-postgres: {error}", file=sys.stderr)
        return 2
    if programs is None:
        print("bench-postgres: there is no PostgreSQL here", file=sys.stderr)
        return 2
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in CASES}
    lost = False
    cache = contestants.make_cache()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=cache)))
        hosts = {
            "single": stack.enter_context(PostgresServer(programs, options="")),
            "cluster": stack.enter_context(Cluster(programs, options="")),
        }
        print(f"a sync of 4 KB takes {machine.sync_ms(home):.2f} ms", flush=True)
        for number in range(options.rounds):
            for name, servers, where in CASES:
                with _database(hosts, where, home) as url:
                    loads, rows = _measure(options, url, servers, home / f"{number}-{name}")
                answers = sum(load.answers for load in loads)
                rate = answers / loads[0].seconds
                p99 = max(load.p99_ms for load in loads)
                rates[name].append((rate, p99))
                # What was on its way when the load ended may be stored without an answer.
                exact = rows is None or 0 <= rows - answers <= options.connections
                lost = lost or not exact
                word = "" if exact else f"  {rows} ROWS FOR {answers} ANSWERS"
                print(f"{name:<36} {rate:>8,.0f}/s  p99 {p99:>6.1f} ms{word}", flush=True)
    _conclude(rates)
    return int(lost)


@contextmanager
def _database(hosts: dict[str, PostgresServer | Cluster], where: str, home: Path) -> Iterator[str]:
    if where == "sqlite":
        folder = Path(tempfile.mkdtemp(dir=home))
        yield f"sqlite:///{folder / 'app.db'}"
        shutil.rmtree(folder)
        return
    host = hosts[where]
    if isinstance(host, Cluster):
        yield host.url(host.database())
    else:
        with host.database() as url:
            yield url


def _measure(
    options: argparse.Namespace, url: str, servers: int, home: Path
) -> tuple[list[Load], int | None]:
    """Return what each server's clients saw, and how many rows that made (None: not asked)."""
    home.mkdir()
    share = options.connections // servers
    with ExitStack() as stack:
        ports = []
        for n in range(servers):
            folder = home / str(n)
            folder.mkdir()
            for part, seconds in (("warm", WARM_SECONDS), ("main", options.seconds)):
                count = CEILING * seconds // servers
                write_bodies(folder / part, f"{n}.{part}", count, contestants.SECRET, 1)
            ports.append(free_port())
            ours = next(each for each in contestants.line_up(1) if each.name == "ours")
            told = ours.environment(folder, ports[-1]) | {"DATABASE_URL": url}
            stack.enter_context(Server(ours.prepare(), told, folder, ports[-1]))
        with ThreadPoolExecutor(servers) as pool:

            def load(part: str, seconds: int) -> list[Load]:
                works = [
                    pool.submit(run_wrk, port, home / str(n) / part, seconds, share, 1)
                    for n, port in enumerate(ports)
                ]
                return [work.result() for work in works]

            load("warm", WARM_SECONDS)
            before = _rows(url)
            loads = load("main", options.seconds)
    after = _rows(url)
    shutil.rmtree(home)
    return loads, None if before is None or after is None else after - before


def _rows(url: str) -> int | None:
    if url.startswith("sqlite"):
        return None  # `make bench` counts those
    return int(query(url, "SELECT count(*) FROM messages")[0][0])


def _conclude(rates: dict[str, list[tuple[float, float]]]) -> None:
    """Print the ratios within each round: medians with the least and the greatest."""
    print()
    for name, other in (
        ("PostgreSQL", "SQLite"),
        ("PostgreSQL, two servers", "PostgreSQL"),
        ("PostgreSQL, four servers", "PostgreSQL"),
        ("PostgreSQL, ANY 1 of two standbys", "PostgreSQL"),
    ):
        for what, index in (("rate", 0), ("p99", 1)):
            found = sorted(
                one[index] / two[index]
                for one, two in zip(rates[name], rates[other], strict=True)
                if two[index]
            )
            median = statistics.median(found)
            print(f"{what} of {name} to {other}: {median:.2f} ({found[0]:.2f}–{found[-1]:.2f})")


if __name__ == "__main__":
    sys.exit(main())
