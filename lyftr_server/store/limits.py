"""How much of what was refused is kept, on every engine."""

from typing import NamedTuple


class Limits(NamedTuple):
    """How much is kept: bodies, and their bytes in all."""

    bodies: int = 10_000
    size: int = 256 << 20
