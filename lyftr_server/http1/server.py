"""The listening side: every connection, what clients may ask for, one clock for all timeouts."""

import asyncio
import logging
import time
from dataclasses import dataclass
from email.utils import formatdate
from time import monotonic
from typing import Protocol

from .connection import Connection
from .exchange import Request, Upload

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What one client may ask for. Times in seconds, sizes in bytes."""

    body_bytes: int = 1 << 20
    head_bytes: int = 32 << 10
    headers: int = 100
    # From the first byte of a head to its end, from there to the end of the body, between
    # requests, and for a client to take any more of an answer that it does not read.
    head_seconds: float = 20
    body_seconds: float = 15
    idle_seconds: float = 75
    write_seconds: float = 30
    # For the application to begin its answer to a client that sends no more: perhaps it only
    # said that it has no more to say, but most such clients are gone.
    half_closed_seconds: float = 1
    # For a client that still sends a body to fall silent, after we refused it.
    linger_seconds: float = 3
    # Requests that one client may send before it reads the first answer.
    pipelined: int = 32
    # How often the clock is looked at.
    sweep_seconds: float = 0.5


class Application(Protocol):
    """What the server needs of the application that it serves."""

    def __call__(self, request: Request) -> object: ...

    def unserved(self, upload: Upload, status: int, latency_ms: float) -> str:
        """Record a request that no handler saw: broken, too slow, or gone (499). Return its id."""


class Server:
    """Listens, and knows every connection."""

    def __init__(self, application: Application, limits: Limits) -> None:
        self.application = application
        self.limits = limits
        self.connections: set[Connection] = set()
        self.in_flight = 0
        self.draining = False
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._quiet = asyncio.Event()
        self._date_second = 0
        self._date = ""

    async def listen(self, host: str, port: int) -> int:
        """Accept connections; return the port (a free one for 0). OSError when it is taken."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self), host, port, backlog=2048
        )
        self._sweeper = asyncio.create_task(self._sweep())
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    async def drain(self, seconds: float) -> bool:
        """Stop listening, let requests in flight finish, close. False: some had to be cut."""
        self.draining = True
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.close_if_idle()
        try:
            async with asyncio.timeout(seconds):
                while self.connections or self.in_flight:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            pass
        whole = not self.in_flight and not any(each.busy for each in self.connections)
        for connection in list(self.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return whole

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._quiet.set()

    def ended(self) -> None:
        """A request is answered, or would be if its client were still there."""
        self.in_flight -= 1
        if self.draining:
            self._quiet.set()

    def date(self) -> str:
        """Return the Date header's value, made once a second."""
        second = int(time.time())
        if second != self._date_second:
            self._date_second, self._date = second, formatdate(second, usegmt=True)
        return self._date

    async def _sweep(self) -> None:
        """End what takes too long: one timer for all connections, not one for each request."""
        while True:
            await asyncio.sleep(self.limits.sweep_seconds)
            now = monotonic()
            for connection in [each for each in self.connections if each.deadline < now]:
                try:
                    connection.time_out()
                except Exception:
                    # Without the sweep no client would ever time out again.
                    logger.exception("a connection could not be timed out")
                    connection.abort()
