"""Which letters this Python folds, and whether it is as another one did."""

import hashlib
from functools import cache

# These versions of Unicode, which a database may name in place of a hash, fold all letters alike.
_ALIKE = {"14.0.0", "15.0.0", "15.1.0"}
_ALIKE_HASH = "c828d487223c544d2885cbe3d38440d2955cbb2fa28ed72dbaf579db9cfce753"


@cache
def folding_hash() -> str:
    """Return what tells apart two Pythons that fold any letter in different ways."""
    return hashlib.sha256(repr(sorted(foldings().items())).encode()).hexdigest()


def folds_alike(found: str) -> bool:
    """Tell whether letters are folded as when `found` was written down: a hash, or a version."""
    return found == folding_hash() or (found in _ALIKE and folding_hash() == _ALIKE_HASH)


@cache
def foldings() -> dict[str, str]:
    """Return every letter that folds to something else, with its folding."""
    found: dict[str, str] = {}
    for start in range(0, 0x110000, 256):
        if 0xD800 <= start < 0xE000:  # surrogates are no letters
            continue
        block = "".join(map(chr, range(start, start + 256)))
        if block.casefold() != block:
            found.update((letter, letter.casefold()) for letter in block)
    return {letter: folding for letter, folding in found.items() if letter != folding}
