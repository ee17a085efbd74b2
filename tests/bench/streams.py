"""What readers of /messages/stream cost deliveries, and how long a message takes to reach them.

    python -m tests.bench.streams [--rate 1000] [--seconds 8] [--readers 100]

Half of the readers never read. The cost is CPU time of the server for each message stored, which
other programs on the machine change little; times to a reader are wall clock, from the moment its
delivery was answered (below zero: the reader had it first).
"""

import argparse
import asyncio
import json
import socket
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from lyftr_server.signature import sign

from ..ports import free_port
from ..process import SECRET, environment, message
from .process import Server

CONNECTIONS = 16


async def deliver(port: int, rate: int, seconds: float, answered: dict[str, float]) -> None:
    """Post `rate` messages a second, each noted with the time of its answer."""
    began = time.monotonic()
    total = int(rate * seconds)
    numbers = iter(range(total))

    async def send() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for n in numbers:
            await asyncio.sleep(max(0, began + n / rate - time.monotonic()))
            body = json.dumps(message(f"m{n}")).encode()
            head = (
                f"POST /webhook HTTP/1.1\r\nHost: x\r\nX-Signature: {sign(SECRET.encode(), body)}"
                f"\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer.decode())
            await reader.readexactly(len(b'{"status": "ok"}'))
            answered[f"m{n}"] = time.monotonic()
        writer.close()

    await asyncio.gather(*(send() for _ in range(CONNECTIONS)))


async def read(port: int, arrived: dict[str, float] | None) -> None:
    """Read a stream for ever; note when each message came, or note nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    writer.write(b"GET /messages/stream HTTP/1.1\r\nHost: x\r\n\r\n")
    with suppress(asyncio.CancelledError, asyncio.IncompleteReadError):
        while True:
            piece = await reader.read(1 << 16)
            if not piece:
                return
            if arrived is None:
                continue
            now = time.monotonic()
            for line in piece.split(b'"message_id": "')[1:]:
                arrived.setdefault(line.partition(b'"')[0].decode(), now)


def stuck(port: int) -> socket.socket:
    """Return a reader that never reads."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(b"GET /messages/stream HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection


async def measure(server: Server, options: argparse.Namespace, readers: int) -> float:
    """Return CPU microseconds a message, and print them with the times to a reader."""
    port = server.port
    answered: dict[str, float] = {}
    arrived: dict[str, float] = {}
    idle = [stuck(port) for _ in range(readers // 2)]
    tasks = [
        asyncio.create_task(read(port, arrived if n == 0 else None))
        for n in range(readers - readers // 2)
    ]
    await asyncio.sleep(1)
    before = server.cpu_seconds()
    await deliver(port, options.rate, options.seconds, answered)
    cost_us = (server.cpu_seconds() - before) / len(answered) * 1e6
    await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    for connection in idle:
        connection.close()
    line = f"{readers:4} readers: {cost_us:6.0f} us a message, {server.peak_rss_mb():.0f} MB"
    if readers:
        waits = [(arrived[name] - at) * 1000 for name, at in answered.items() if name in arrived]
        parts = statistics.quantiles(waits, n=100)
        missing = len(answered) - len(waits)
        line += f"; to a reader p50 {parts[49]:.0f}, p99 {parts[98]:.0f}, most {max(waits):.0f} ms"
        line += f"; {missing} missing" if missing else ""
    print(line, flush=True)
    return cost_us


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--readers", type=int, default=100)
    options = parser.parse_args()
    costs = []
    for readers in (0, options.readers):
        with tempfile.TemporaryDirectory() as folder:
            port = free_port()
            given = {"WEBHOOK_SECRET": SECRET, "PORT": str(port), "DATABASE_URL": "sqlite:///a.db"}
            command = [sys.executable, "-m", "lyftr_server", "serve"]
            with Server(command, environment(**given), Path(folder), port) as server:
                costs.append(asyncio.run(measure(server, options, readers)))
    print(f"with readers: {costs[1] / costs[0]:.2f} times the cost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
