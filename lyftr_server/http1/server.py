"""The listening side: accepts, drains, and looks at the clock for all connections."""

import asyncio
import logging
import socket
from time import monotonic

from .common import Common, Service
from .connection import ClientConnection
from .limits import ClientLimits

logger = logging.getLogger(__name__)

BACKLOG = 2048


class Server(Common):
    """Listens, and knows every connection."""

    def __init__(self, service: Service, limits: ClientLimits) -> None:
        super().__init__(service, limits)
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def listen(self, host: str, port: int) -> int:
        """Accept connections; return the port (a free one for 0). OSError when it is taken."""
        loop = asyncio.get_running_loop()
        if host == "::":  # all addresses; alone it would be those of IPv6
            both = socket.create_server(
                (host, port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
            )
            self._listener = await loop.create_server(
                lambda: ClientConnection(self), sock=both, backlog=BACKLOG
            )
        else:
            self._listener = await loop.create_server(
                lambda: ClientConnection(self), host, port, backlog=BACKLOG
            )
        self._sweeper = asyncio.create_task(self._sweep())
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    async def drain(self, seconds: float, delay_seconds: float = 0) -> bool:
        """Stop listening, let requests in flight finish, close. False: some had to be cut.

        For `delay_seconds` all goes on as before: whoever balances load may ask once more, and
        hear from the application that no more should come here.
        """
        await asyncio.sleep(delay_seconds)
        self.draining = True
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.close_if_idle()
        try:
            async with asyncio.timeout(seconds):
                while self.connections or self.in_flight:
                    self.quiet.clear()
                    await self.quiet.wait()
        except TimeoutError:
            pass
        whole = not self.in_flight and not any(each.busy for each in self.connections)
        for connection in list(self.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return whole

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
