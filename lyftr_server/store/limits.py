"""How much is kept, and for how long, on every engine."""

from typing import NamedTuple


class Limits(NamedTuple):
    """How much is kept: bodies, and their bytes in all."""

    bodies: int = 10_000
    size: int = 256 << 20


class Policy(NamedTuple):
    """How long messages are kept (None: for ever), and how long their ids are remembered."""

    retention_days: float | None = None
    tombstone_days: float = 30
