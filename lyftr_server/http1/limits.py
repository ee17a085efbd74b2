"""What clients may ask for, and the bytes that all of them together may make the server keep."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClientLimits:
    """What one client may ask for. Times in seconds, sizes in bytes."""

    body_bytes: int = 1 << 20
    head_bytes: int = 32 << 10
    headers: int = 100
    # Of trailers, or of what a chunk says beside its size.
    extra_bytes: int = 8 << 10
    # For the bodies of all clients that are being received or worked on, and half of it for
    # answers that are not read; beside what each client has of its own.
    budget_bytes: int = 64 << 20
    own_bytes: int = 16 << 10
    # From the first byte of a head to its end, from there to the end of the body, between
    # requests, and for a client to take any more of an answer that it does not read.
    head_seconds: float = 20
    body_seconds: float = 15
    idle_seconds: float = 75
    write_seconds: float = 30
    # For the application to begin its answer to a GET or HEAD of a client that sends no more, and
    # for one that follows what comes: most such clients are gone. What changes something has no
    # such limit: its sender may have said all it had to say, and waits to hear of it.
    half_closed_seconds: float = 1
    # For a client that still sends a body to fall silent, after we refused it.
    linger_seconds: float = 3
    # Requests that one client may send before it reads the first answer.
    pipelined: int = 32
    # How often the clock is looked at.
    sweep_seconds: float = 0.5


class Budget:
    """So many bytes and no more; perhaps as a part of a larger budget."""

    def __init__(self, limit: int, whole: "Budget | None" = None) -> None:
        self.limit = limit
        self.used = 0
        self._whole = whole

    def take(self, size: int) -> bool:
        """Take `size` bytes; False, and nothing is taken, when they are not there."""
        if self.used + size > self.limit:
            return False
        if self._whole is not None and not self._whole.take(size):
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        self.used -= size
        if self._whole is not None:
            self._whole.give(size)


class Share:
    """What one client's requests take: first of its own bytes, then of the budget."""

    def __init__(self, budget: Budget, own_bytes: int) -> None:
        self.used = 0
        self._own_bytes = own_bytes
        self._budget = budget
        self._charged = 0

    def take(self, size: int) -> bool:
        used = self.used + size
        more = used - self._own_bytes - self._charged
        if more > 0:
            if not self._budget.take(more):
                return False
            self._charged += more
        self.used = used
        return True

    def give(self, size: int) -> None:
        self.used -= size
        less = self._charged - max(self.used - self._own_bytes, 0)
        if less > 0:
            self._budget.give(less)
            self._charged -= less
