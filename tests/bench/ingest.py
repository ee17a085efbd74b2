"""make bench: signed messages that each server stores a second, side by side.

Each server is started fresh for each round, on a loopback port, in a directory of its own on the
project's disk. The servers take turns within a round, so a machine that slows down slows them all;
only ratios within one round carry over to other machines. With everything it takes 20 minutes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench import contestants, database, machine, report
from tests.bench.bodies import write_bodies
from tests.bench.contestants import SECRET, Contestant, NotHereError
from tests.bench.contract import check_contract
from tests.bench.load import LoadError, require_wrk, run_wrk
from tests.bench.process import Server
from tests.ports import free_port

RESULTS = Path(__file__).with_name("results")
WARM_SECONDS = 1
QUICK = {"rounds": 1, "seconds": 2, "rows": 20_000}
FULL = {"rounds": 3, "seconds": 6, "rows": 1_000_000}


def main() -> int:
    """Run the benchmark; 0 when every round was valid and every bar was reached."""
    # So that an end from outside, too, goes through the with statements that end the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = _options()
    try:
        wrk = require_wrk()
    except LoadError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    cache = contestants.make_cache()
    with tempfile.TemporaryDirectory(prefix="run-", dir=cache) as name:
        directory = Path(name)
        facts = machine.describe(directory) | {"load": wrk}
        print(report.headline(facts), flush=True)
        commands, skipped = _prepare(_chosen(options), directory)
        rounds = _all_rounds(options, commands, directory)
    return _conclude(options, facts, skipped, rounds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ingest", description=__doc__)
    parser.add_argument("--rounds", type=int, help="rounds (default 3)")
    parser.add_argument("--seconds", type=int, help="seconds a round (default 6)")
    parser.add_argument("--rows", type=int, help="messages stored before (default 1000000)")
    parser.add_argument("--connections", type=_numbers, default=[1, 8, 64, 256], metavar="N,N,...")
    parser.add_argument("--threads", type=int, default=1, help="threads of wrk (default 1)")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="NAME,NAME,...")
    parser.add_argument("--quick", action="store_true", help="one short round: does it all work?")
    parser.add_argument("--output", type=Path, help="folder for the results")
    options = parser.parse_args()
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.output is None:
        # A try, or a part, must not replace the results of a whole run.
        whole = not options.quick and not options.only
        options.output = RESULTS if whole else contestants.CACHE / "results"
    names = [contestant.name for contestant in contestants.line_up(options.rows)]
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"no such server: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return options


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _chosen(options: argparse.Namespace) -> list[Contestant]:
    everybody = contestants.line_up(options.rows)
    if not options.only:
        return everybody
    # Without the yardstick there are no ratios.
    return [server for server in everybody if server.name in {"bare", *options.only}]


def _prepare(
    chosen: list[Contestant], directory: Path
) -> tuple[dict[Contestant, list[str]], dict[str, str]]:
    """Install what is missing; return the command of each server, and why some are left out."""
    commands, skipped = {}, {}
    for contestant in chosen:
        try:
            command = contestant.prepare()
            if contestant.slow_ms:
                contestants.slow_sync()
            if contestant.stored_rows:
                print(f"storing {contestant.stored_rows:,} messages beforehand", flush=True)
                database.build_database(directory / "full.db", contestant.stored_rows)
            commands[contestant] = command
        except NotHereError as error:
            skipped[contestant.name] = str(error)
            print(f"SKIPPED {contestant.name}: {error}", flush=True)
    return commands, skipped


def _all_rounds(
    options: argparse.Namespace, commands: dict[Contestant, list[str]], directory: Path
) -> list[dict[str, Any]]:
    rounds = []
    main_load = report.main_connections(options.connections)
    for number in range(1, options.rounds + 1):
        for connections in options.connections:
            for contestant, command in commands.items():
                if connections == main_load or contestant.every_connections:
                    rounds.append(
                        _round(options, number, connections, contestant, command, directory)
                    )
                    print(report.progress(rounds[-1]), flush=True)
    return rounds


def _round(
    options: argparse.Namespace,
    number: int,
    connections: int,
    contestant: Contestant,
    command: list[str],
    directory: Path,
) -> dict[str, Any]:
    """Measure one server once; a round that cannot be trusted says why in `faults`."""
    result: dict[str, Any] = {
        "round": number,
        "server": contestant.name,
        "label": contestant.label,
        "connections": connections,
        "faults": [],
    }
    home = directory / f"{number}-{connections}-{contestant.name}"
    home.mkdir()
    try:
        result |= _measure(options, number, connections, contestant, command, home)
    except Exception as error:  # whatever it is, the other rounds are worth having
        result["faults"].append(f"{type(error).__name__}: {error}")
    finally:
        shutil.rmtree(home)
    return result


def _measure(
    options: argparse.Namespace,
    number: int,
    connections: int,
    contestant: Contestant,
    command: list[str],
    home: Path,
) -> dict[str, Any]:
    stored = contestants.database_path(home)
    if contestant.stored_rows:
        shutil.copyfile(home.parent / "full.db", stored)
    threads = min(options.threads, connections)
    for part, seconds in (("warm", WARM_SECONDS), ("main", options.seconds)):
        namespace = f"{number}.{connections}.{contestant.name}.{part}"
        count = contestant.ceiling * seconds
        write_bodies(home / part, namespace, count, SECRET, threads)
    # What was just written must not be on its way to the disk while the server waits for it.
    os.sync()
    port = free_port()
    with Server(command, contestant.environment(home, port), home, port) as server:
        if contestant.stores:
            check_contract(port, SECRET, stored, server.log)
        run_wrk(port, home / "warm", WARM_SECONDS, connections, threads)
        rows = database.settled_rows(stored) if contestant.stores else 0
        cpu, loop = server.cpu_seconds(), server.loop_seconds()
        load = run_wrk(port, home / "main", options.seconds, connections, threads)
        cpu, loop = server.cpu_seconds() - cpu, server.loop_seconds() - loop
        server.check_alive()
        rows = database.settled_rows(stored) - rows if contestant.stores else 0
        rss = server.peak_rss_mb()
    faults = []
    if load.ran_out:
        faults.append(f"all {contestant.ceiling * options.seconds} bodies were used up")
    if load.broken:
        faults.append(f"{load.broken} connections broke or timed out")
    if contestant.stores and not 0 <= rows - load.answers <= connections:
        faults.append(f"{load.answers} answers 200 and {rows} rows")
    if not load.answers:
        faults.append("not one answer 200")
    return {
        "seconds": load.seconds,
        "answers": load.answers,
        "rows": rows,
        "refused": load.refused,
        "rate": load.answers / load.seconds,
        "p50_ms": load.p50_ms,
        "p99_ms": load.p99_ms,
        "max_ms": load.max_ms,
        "cpu_us": cpu * 1e6 / max(1, load.answers),
        "loop_us": loop * 1e6 / max(1, load.answers),
        "rss_mb": rss,
        "faults": faults,
    }


def _conclude(
    options: argparse.Namespace,
    facts: dict[str, Any],
    skipped: dict[str, str],
    rounds: list[dict[str, Any]],
) -> int:
    """Print and write what came out."""
    outcome = report.Outcome(
        facts=facts,
        plan={"rounds": options.rounds, "seconds": options.seconds, "rows": options.rows},
        skipped=skipped,
        rounds=rounds,
    )
    print(outcome.text())
    options.output.mkdir(parents=True, exist_ok=True)
    outcome.write(options.output)
    print(f"\nWritten to {options.output}: ingest.json, ingest.md, ingest.svg")
    if invalid := [result for result in rounds if result["faults"]]:
        print(f"Rounds that do not count: {len(invalid)}; see above.")
    if options.quick:
        print("A quick run shows that everything works; its figures mean little.")
    missed = [bar for bar in outcome.bars() if bar.passed is False]
    return 1 if invalid or (missed and not options.quick) else 0


if __name__ == "__main__":
    sys.exit(main())
