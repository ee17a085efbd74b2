"""What all connections of a server have in common."""

import asyncio
import time
from email.utils import formatdate
from typing import NamedTuple, Protocol

from .intake import PIECE_BYTES, Turns
from .limits import Budget, ClientLimits
from .upload import Request, Upload


class Service(Protocol):
    """Who answers requests."""

    def __call__(self, request: Request) -> object: ...

    def wants_body(self, upload: Upload) -> bool:
        """Whether the request's body is of any use: others are read, and dropped."""
        ...

    def unserved(self, upload: Upload, status: int, latency_ms: float) -> str:
        """Record a request that no handler saw: broken, too slow, or gone (499). Return its id."""
        ...


class Load(NamedTuple):
    """What a server has in hand at a moment."""

    requests: int
    connections: int
    body_bytes: int  # of the budget
    budget_bytes: int


class Closable(Protocol):
    """A connection, as far as its server knows it."""

    deadline: float

    @property
    def busy(self) -> bool: ...

    def time_out(self) -> None: ...

    def close_if_idle(self) -> None: ...

    def abort(self) -> None: ...


class Common:
    """The limits, the budget, the counts and the clock."""

    def __init__(self, service: Service, limits: ClientLimits) -> None:
        self.service = service
        self.limits = limits
        self.budget = Budget(limits.budget_bytes)
        # Those who do not read must leave room for those who deliver.
        self.unread = Budget(limits.budget_bytes // 2, self.budget)
        self.turns = Turns()
        # One for all: what is read is taken out of it before anything else is read.
        self.inbox = memoryview(bytearray(PIECE_BYTES))
        self.connections: set[Closable] = set()
        self.in_flight = 0
        self.draining = False
        self.quiet = asyncio.Event()  # perhaps all connections are closed, and all requests over
        self._date_second = 0
        self._date = ""

    def load(self) -> Load:
        used, limit = self.budget.used, self.budget.limit
        return Load(self.in_flight, len(self.connections), used, limit)

    def closed(self, connection: Closable) -> None:
        self.connections.discard(connection)
        self.quiet.set()

    def ended(self) -> None:
        """A request is answered, or would be if its client were still there."""
        self.in_flight -= 1
        if self.draining:
            self.quiet.set()

    def date(self) -> str:
        """Return the Date header's value, made once a second."""
        second = int(time.time())
        if second != self._date_second:
            self._date_second, self._date = second, formatdate(second, usegmt=True)
        return self._date
