"""How much is kept, and for how long, on every engine."""

from typing import NamedTuple

DAY_SECONDS = 86_400


class Limits(NamedTuple):
    """How much is kept: bodies, and their bytes in all."""

    bodies: int = 10_000
    size: int = 256 << 20


class Policy(NamedTuple):
    """How long messages are kept (None: for ever), and how long their ids are remembered."""

    retention_days: float | None = None
    tombstone_days: float = 30

    def cutoff_us(self, now: float) -> int:
        """Return the instant (microseconds since 1970) before which rows have expired by `now`.

        `now`: seconds since 1970. 0: nothing expires.
        """
        days = self.retention_days
        return 0 if days is None else int((now - days * DAY_SECONDS) * 1e6)

    def forgotten_at(self, now: float) -> float:
        """Return when the id of what goes now is remembered no longer, in seconds since 1970."""
        return now + self.tombstone_days * DAY_SECONDS
