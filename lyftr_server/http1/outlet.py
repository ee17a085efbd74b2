"""What is written to one client, and whether it reads it."""

import asyncio
from time import monotonic

from .limits import Budget


class Outlet:
    """Writes, waits for room, and keeps count of what is not read."""

    def __init__(self, transport: asyncio.Transport, unread: Budget) -> None:
        # Whatever cannot be sent at once is unread: we hear when all of it has left.
        transport.set_write_buffer_limits(0)
        self._transport = transport
        self._unread = unread
        self._owed = 0  # bytes of the budget, for answers that are not read yet
        self._room: asyncio.Future[None] | None = None  # while there is none
        self._unsent, self._progress = 0, 0.0  # at the last look, and since when it is so much

    @property
    def blocked(self) -> bool:
        """Whether the client does not read what it is sent."""
        return self._room is not None

    def send(self, *data: bytes) -> None:
        if self._transport.is_closing():
            return
        if len(data) == 1:
            self._transport.write(data[0])
        else:
            self._transport.writelines(data)

    def owe(self, size: int) -> bool:
        """Reserve bytes for an answer until its client has read it; False: there are none left."""
        if self._transport.is_closing():
            return True  # it is not sent, and nothing would come that gives them back
        size = min(size, self._unread.limit)  # a larger one goes out when it is alone
        if not self._unread.take(size):
            return False
        self._owed += size
        return True

    async def flow(self) -> bool:
        """Wait until the client has room for more; False: it is gone, or was cut."""
        if self._room is not None and not self._transport.is_closing():
            await self._room
        return not self._transport.is_closing()

    def block(self) -> None:
        self._room = asyncio.get_running_loop().create_future()

    def release(self) -> None:
        """Nothing is left unread, or nobody is left to read it."""
        self._unread.give(self._owed)
        self._owed = self._unsent = 0
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    def answered(self) -> None:
        """An answer is written; perhaps all of it has left."""
        if self._owed and self._room is None:
            self.release()

    def stuck_since(self) -> float | None:
        """Return since when the client has taken nothing of what is unsent; None: nothing is."""
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent or not self._unsent:
            self._progress = monotonic()
        self._unsent = unsent
        return self._progress if unsent else None
