"""python -m tests.attack: how long deliveries wait, and what the server takes, beside attacks.

Everything stays on this machine. Each attack runs for SECONDS against a server of its own, and
meanwhile one sender delivers a message after the other.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..process import ROOT, RunningServer, as_body, ask, message
from .crowd import ATTACKS

MEGABYTE = 1 << 20
# What no attack may reach: a delivery's wait, and the server's memory with 5,000 clients.
WAIT_MS = 250
RSS_MB = 400
TEXTS = 4000
PAUSE_SECONDS = 0.01


class Outcome(NamedTuple):
    """What was seen beside one attack. Waits in milliseconds, memory in megabytes."""

    name: str
    clients: int
    delivered: int
    refused: int
    median_ms: float
    worst_ms: float
    rss_mb: float
    ready: bool

    @property
    def holds(self) -> bool:
        return self.delivered > 0 and self.worst_ms <= WAIT_MS and self.rss_mb <= RSS_MB

    def line(self) -> str:
        return (
            f"{self.name:<13} {self.clients:>7} {self.delivered:>9} {self.refused:>7} "
            f"{self.median_ms:>9.1f} {self.worst_ms:>8.1f} {self.rss_mb:>7.0f} "
            f"{'yes' if self.ready else 'no':>5}  {ATTACKS[self.name].title}"
        )


HEAD = (
    "attack        clients delivered refused median_ms worst_ms rss_mb ready  what they do\n"
    f"{'':13} {'':>7} {'':>9} {'':>7} {'':>9} {WAIT_MS:>8} {RSS_MB:>7}       (at most)"
)


def fill(server: RunningServer, texts: int) -> None:
    """Store what makes reads dear: long texts of one letter."""
    connection = server.connect()
    for number in range(texts):
        body = as_body(message(f"long-{number}", text="a" * 4096))
        assert ask(connection, "POST", "/webhook", body, server.signed(body)).status == 200
    connection.close()


def rss_mb(server: RunningServer) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


@contextmanager
def crowd(server: RunningServer, name: str, clients: int, seconds: float) -> Iterator[None]:
    arguments = [str(server.port), name, str(clients), str(seconds)]
    process = subprocess.Popen([sys.executable, "-m", "tests.attack.crowd", *arguments], cwd=ROOT)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure(server: RunningServer, name: str, clients: int, seconds: float) -> Outcome:
    """Deliver one message after the other while the attack goes on."""
    waits, peak, refused, ready = [], rss_mb(server), 0, True
    with crowd(server, name, clients, seconds + 60):
        connection = server.connect(timeout=60)
        end = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end:
            number += 1
            body = as_body(message(f"{name}-{number}"))
            started = time.monotonic()
            answer = ask(connection, "POST", "/webhook", body, server.signed(body))
            if answer.status == 200:
                waits.append((time.monotonic() - started) * 1000)
            else:
                refused += 1
            peak = max(peak, rss_mb(server))
            if number % 20 == 0:
                ready = ready and ask(connection, "GET", "/health/ready").status == 200
            time.sleep(PAUSE_SECONDS)
        connection.close()
    waits.sort()
    median, worst = (waits[len(waits) // 2], waits[-1]) if waits else (0.0, 0.0)
    return Outcome(name, clients, len(waits), refused, median, worst, peak, ready)


def run(names: Sequence[str], seconds: float, texts: int, share: float = 1) -> Iterator[Outcome]:
    """Yield what each attack did; `share` of its clients take part."""
    for name in names:
        with tempfile.TemporaryDirectory() as folder, RunningServer(Path(folder)) as server:
            fill(server, texts)
            clients = round(ATTACKS[name].clients * share)
            yield measure(server, name, clients, seconds)
            server.kill()  # it need not answer all of them before it ends


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="all, when none is named")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--texts", type=int, default=TEXTS, help="long messages stored before")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(ATTACKS)
    if unknown:
        parser.error(f"the attacks are {', '.join(ATTACKS)}")
    print(HEAD, flush=True)
    failed = []
    for outcome in run(arguments.names or list(ATTACKS), arguments.seconds, arguments.texts):
        print(outcome.line(), flush=True)
        if not outcome.holds:
            failed.append(outcome.name)
    if failed:
        print(f"too much: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
