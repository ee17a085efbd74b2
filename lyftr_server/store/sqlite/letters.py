"""SQL conditions for `q.casefold() in text.casefold()`, which SQLite cannot fold by itself.

SQLite's LIKE folds ASCII, GLOB and instr() nothing. But casefold() works letter by letter, so the
letters whose folding begins with, ends with or contains something are a short list. A function of
ours, called for each row, would give up and take the GIL each time.
"""

import re
from functools import cache, lru_cache
from typing import NamedTuple

from ..folding import foldings

# Up to so many spellings, looking for each by itself is faster than GLOB with sets of letters.
MOST_SPELLINGS = 9
# LIKE and GLOB take U+FFFE and U+FFFF for U+FFFD, and so does the trigram tokenizer.
CONFUSED = frozenset("\ufffd\ufffe\uffff")


class Condition(NamedTuple):
    """A condition on `text`. Where it is not exact, some rows that satisfy it do not match."""

    sql: str
    values: list[str]
    exact: bool


@lru_cache(maxsize=64)
def condition(folded: str) -> Condition:
    """Return the condition for texts whose folding has `folded` in it."""
    if len(folded) == 1:
        sql, values = _any(_having(folded), folded)
        return Condition(sql, values, exact=True)
    # Of a longer one, three pairs leave few enough candidates to fold them.
    last = len(folded) - 2
    pairs = [_pair(folded[place : place + 2]) for place in sorted({0, last // 2, last})]
    return Condition(
        " AND ".join(f"({sql})" for sql, _ in pairs),
        [value for _, values in pairs for value in values],
        exact=not last and CONFUSED.isdisjoint(folded),
    )


def _pair(folded: str) -> tuple[str, list[str]]:
    """Two letters stand in one letter's folding, or end one and begin the next."""
    ends = {letter for letter in _having(folded[0]) if letter.casefold().endswith(folded[0])}
    starts = {letter for letter in _having(folded[1]) if letter.casefold().startswith(folded[1])}
    within = _having(folded)
    spellings = within | {end + start for end in ends for start in starts}
    others = sum(not spelling.isascii() for spelling in spellings)
    if others <= MOST_SPELLINGS:
        sql, values = _any(spellings)
    else:
        sql, values = "text GLOB ?", [f"*{_set(ends)}{_set(starts)}*"]
        if within:
            sql, values = f"({sql} OR text GLOB ?)", [*values, f"*{_set(within)}*"]
    # Each spelling is one more look through each text: first for a letter that all of them need.
    if folded.isascii():
        needed = {letter for letter in ends | starts | within if not letter.isascii()}
    else:
        sides = [side for side, of in ((ends, folded[0]), (starts, folded[1])) if not of.isascii()]
        needed = within | min(sides, key=len)
    if len(needed) < others and len(needed) <= MOST_SPELLINGS:
        first, letters = _any(needed)
        sql, values = f"({first}) AND ({sql})", [*letters, *values]
    if folded.isascii():
        like, pattern = _like(folded)
        sql, values = f"{like} OR {sql}" if sql else like, [*pattern, *values]
    return sql, values


def _any(spellings: set[str], folded: str = "") -> tuple[str, list[str]]:
    """Return the condition for any of the spellings; `folded` stands for all ASCII ones."""
    others = sorted(spelling for spelling in spellings if not spelling.isascii())
    sql, values = ["instr(text, ?)"] * len(others), others
    if len(others) > MOST_SPELLINGS and all(len(spelling) == 1 for spelling in others):
        # 99 letters fold to something with a Greek iota: first see whether any is Greek.
        sql = ["text GLOB ? AND text GLOB ?"]
        values = [f"*{_set(set(others), 1000)}*", f"*{_set(set(others))}*"]
    if folded.isascii() and folded:
        like, pattern = _like(folded)
        sql, values = [like, *sql], [*pattern, *values]
    return " OR ".join(sql), values


def _like(folded: str) -> tuple[str, list[str]]:
    escaped = re.sub(r"([%_\\])", r"\\\1", folded)
    return r"text LIKE ? ESCAPE '\'", [f"%{escaped}%"]


def _set(letters: set[str], gap: int = 1) -> str:
    """Return GLOB's pattern for one of the letters, or with a gap one near them."""
    if len(letters) == 1:
        (letter,) = letters
        return f"[{letter}]" if letter in "*?[" else letter
    # Ranges keep the set short, and so fast. None of GLOB's own characters is in a set: they have
    # no other case.
    ranges: list[list[int]] = []
    for code in sorted(map(ord, letters)):
        if ranges and code - ranges[-1][1] <= gap:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return f"[{''.join(chr(a) if a == b else f'{chr(a)}-{chr(b)}' for a, b in ranges)}]"


@cache
def _having(folded: str) -> set[str]:
    """Return the letters whose own folding has `folded` in it."""
    found = {letter for letter, folding in foldings().items() if folded in folding}
    if folded.casefold() == folded and len(folded) == 1:
        found.add(folded)
    return found
