"""A Bloom filter: which hashes were surely never added."""

from collections.abc import Iterator

# Three bits of 2**27 for each hash: with ten million of them, one in a hundred others seems to be
# among them. 16 MiB, once there is any.
_BITS = 27
_PROBES = 3


class Filter:
    """False while it is empty."""

    def __init__(self) -> None:
        self._bits: bytearray | None = None

    def add(self, hash: bytes) -> None:
        if self._bits is None:
            self._bits = bytearray(1 << (_BITS - 3))
        for place in _places(hash):
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, hash: bytes) -> bool:
        bits = self._bits
        return bits is not None and all(bits[at >> 3] & 1 << (at & 7) for at in _places(hash))

    def __bool__(self) -> bool:
        return self._bits is not None


def _places(hash: bytes) -> Iterator[int]:
    whole = int.from_bytes(hash, "big")
    return (whole >> _BITS * n & (1 << _BITS) - 1 for n in range(_PROBES))
