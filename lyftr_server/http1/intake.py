"""When a client is read, and how much of it at a time."""

import asyncio
from collections import deque
from enum import Enum

# Read and parsed at a time, and by how many clients in one turn of the loop; those who send
# little at a time, as senders do, never wait for their turn.
PIECE_BYTES = 8 << 10
LITTLE_BYTES = 4 << 10
_PIECES = 4


class Hold(Enum):
    """Why a client is not read."""

    UNREAD = "it does not read what it is sent"
    UNANSWERED = "much that it sent is not answered yet"
    TURN = "others come first"


class Turns:
    """Clients that send much are read in turn, and the loop runs in between."""

    def __init__(self) -> None:
        self._queue: deque[Intake] = deque()

    def add(self, intake: "Intake") -> None:
        if not self._queue:
            asyncio.get_running_loop().call_soon(self._go_on)
        self._queue.append(intake)

    def _go_on(self) -> None:
        for _ in range(min(_PIECES, len(self._queue))):
            self._queue.popleft().release(Hold.TURN)
        if self._queue:
            asyncio.get_running_loop().call_soon(self._go_on)


class Intake:
    """Pauses and resumes the reading of one client."""

    def __init__(self, turns: Turns, transport: asyncio.Transport) -> None:
        self._turns = turns
        self._transport = transport
        self.holds: set[Hold] = set()

    def take_turns(self) -> None:
        """Let others come first: there may be more."""
        if Hold.TURN not in self.holds:
            self.hold(Hold.TURN)
            self._turns.add(self)

    def hold(self, why: Hold) -> None:
        if not self.holds and not self._transport.is_closing():
            self._transport.pause_reading()
        self.holds.add(why)

    def release(self, why: Hold) -> None:
        if why in self.holds:
            self.holds.remove(why)
            if not self.holds and not self._transport.is_closing():
                self._transport.resume_reading()
