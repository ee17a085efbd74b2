"""Pages of the messages that contain q: exact totals, and rows in the listing's order."""

import json
import sqlite3
import time
from collections.abc import Iterator
from math import isqrt
from typing import NamedTuple

from ...records import Message
from ..cursor import LAST, Key, Position
from ..pages import Found, beside, found
from . import listing, search
from .letters import condition
from .listing import Scope
from .sql import Pieces, json_row

# A search remembers the seqs of so many matches at most, to sort them.
COLLECTED = 50_000
# Rows of the listing in one piece of a walk, each read by its seq; the first pieces are short.
WALK_ROWS = 1_000
FIRST_WALK_ROWS = 125
# A piece is to take so long: whatever it covers, the next covers as much less or more.
PIECE_SECONDS = 0.02
FIRST_ROWS = 250
# Costs, relative to each other: to read one row by its seq, in a walk or to sort it; and to look
# at one in a scan.
READ_COST = 8
SCAN_COST = 1
# A scope of so few rows is walked without asking what it would cost to look the matches up.
SMALL = 2_000


class Search(NamedTuple):
    """What to look for, and where. Rows stored after `bound` are left for the next search."""

    folded: str
    scope: Scope
    bound: int


class Matches(NamedTuple):
    """How many rows match, and unless they are too many their seqs."""

    total: int
    seqs: list[int] | None


def begin(db: sqlite3.Connection, q: str, scope: Scope) -> Search:
    (bound,) = db.execute("SELECT coalesce(max(seq), 0) FROM messages").fetchone()
    return Search(q.casefold(), scope, bound)


# -- the total


def matches(db: sqlite3.Connection, wanted: Search, need: int) -> Pieces[Matches]:
    """Return how many rows match, exactly: by the index, a scan, or a walk of the scope.

    `need`: up to which match, in the listing's order, rows will be asked for.
    """
    everything = wanted._replace(scope=Scope())
    rows = listing.count(db, wanted.scope)
    # Twice as many as _rows() would ever rather sort.
    most = min(COLLECTED, 2 * isqrt(need * rows))
    if wanted == everything:
        return (yield from _find(db, wanted, most))
    if rows > SMALL:
        if search.indexed(wanted.folded):
            beyond = yield from _find(db, everything, 0, enough=rows)
            cost = READ_COST * beyond.total
        else:
            cost = SCAN_COST * listing.count(db, everything.scope)
        if cost < READ_COST * rows:
            return (yield from _find(db, wanted, most))
    total, seqs = 0, []
    for _, hits in _walk(db, wanted, wanted.scope.first, backward=False, inclusive=True):
        total += len(hits)
        if total <= most:
            seqs += hits
        yield
    return Matches(total, seqs if total <= most else None)


def _find(
    db: sqlite3.Connection, wanted: Search, most: int, enough: int | None = None
) -> Pieces[Matches]:
    """Count the matches and collect up to `most`; with more than `enough`, count no further."""
    folded, scope, bound = wanted
    after = total = 0
    rows = FIRST_ROWS
    seqs: list[int] | None = []
    while after < bound and (enough is None or total <= enough):
        began = time.monotonic()
        left = most - total if seqs is not None else 0
        after, n, more = search.piece(db, folded, scope, after, bound, left, rows)
        total += n
        seqs = None if seqs is None or more is None else seqs + more
        rows = _next_size(rows, time.monotonic() - began)
        yield
    return Matches(total, seqs)


def _next_size(rows: int, taken_seconds: float) -> int:
    if taken_seconds < PIECE_SECONDS / 2:
        return min(4 * rows, search.INDEX_ROWS)
    return max(1, int(rows * min(1.0, PIECE_SECONDS / taken_seconds)))


def in_order(db: sqlite3.Connection, wanted: Search, *, backward: bool) -> Pieces[list[int] | None]:
    """Return the seqs of all matches in the listing's order, if the index knows them and few are.

    None: they are best met on a walk.
    """
    if not search.indexed(wanted.folded):
        return None
    found = yield from _find(db, wanted, COLLECTED, enough=COLLECTED)
    if found.seqs is None:
        return None
    place = wanted.scope.last if backward else wanted.scope.first
    start = Position(backward, place)
    return _sort(db, wanted.scope, found.seqs, start, 0, len(found.seqs), inclusive=True)


# -- the rows


def at_offset(
    db: sqlite3.Connection, wanted: Search, matches: Matches, offset: int, limit: int
) -> Pieces[Found]:
    """Return the matches from number `offset` on."""
    total, first = matches.total, wanted.scope.first
    n = min(limit, total - offset)
    if n <= 0:
        return Found([], None, LAST if total else None)
    # From the nearer end.
    backward = offset > total // 2
    skip = total - offset - n if backward else offset
    place = LAST if backward else first
    start = Position(backward, place)
    data = yield from _rows(db, wanted, matches, start, skip, n, inclusive=True)
    return found(data, place, more=offset + n < total, before=offset > 0)


def at_position(
    db: sqlite3.Connection, wanted: Search, matches: Matches, start: Position, limit: int
) -> Pieces[Found]:
    """Return the matches after a place, or the nearest before it."""
    data = yield from _rows(db, wanted, matches, start, 0, limit + 1)
    more = len(data) > limit
    if more:
        del data[0 if start.backward else -1]
    behind = yield from _any_behind(db, wanted, matches, start)
    return beside(data, start, more=more, behind=behind)


def _any_behind(
    db: sqlite3.Connection, wanted: Search, matches: Matches, start: Position
) -> Pieces[bool]:
    """Tell whether a match lies at the place or on its other side."""
    # The row that gave the place its name matched then, and rows do not change.
    if db.execute(
        "SELECT 1 FROM messages WHERE message_id = ? AND instant = ?",
        (start.key.message_id, start.key.instant),
    ).fetchone():
        return True
    other = Position(not start.backward, start.key)
    return bool((yield from _rows(db, wanted, matches, other, 0, 1, inclusive=True)))


def after(
    db: sqlite3.Connection,
    wanted: Search,
    place: Key,
    size: int,
    *,
    backward: bool,
    inclusive: bool,
) -> Pieces[list[Message]]:
    """Return the next matches after a place, or the nearest before it, by a walk from there."""
    seqs: list[int] = []
    for _, hits in _walk(db, wanted, place, backward=backward, inclusive=inclusive):
        seqs += hits
        if len(seqs) >= size:
            break
        yield
    return listing.rows_by_seq(db, seqs[:size])


def _rows(
    db: sqlite3.Connection,
    wanted: Search,
    matches: Matches,
    start: Position,
    skip: int,
    n: int,
    *,
    inclusive: bool = False,
) -> Pieces[list[Message]]:
    """Return `n` matches on one side of a place, without the first `skip`; ascending.

    Few matches are read and sorted. Of many, enough are met soon on a walk through the listing;
    where they lie further off than their number suggests, sorting them is the way again.
    """
    if not matches.total:
        return []
    listed = listing.count(db, wanted.scope)
    steps = (skip + n) * listed // matches.total
    seqs: list[int] | None = None
    if matches.seqs is None or steps < matches.total:
        budget = None if matches.seqs is None else 2 * matches.total
        seqs = yield from _walk_to(db, wanted, start, skip + n, budget, inclusive)
    if seqs is not None:
        seqs = seqs[skip : skip + n]
    else:
        seqs = _sort(db, wanted.scope, matches.seqs or [], start, skip, n, inclusive)
    if start.backward:
        seqs.reverse()
    return listing.rows_by_seq(db, seqs)


def _walk_to(
    db: sqlite3.Connection,
    wanted: Search,
    start: Position,
    enough: int,
    budget: int | None,
    inclusive: bool,
) -> Pieces[list[int] | None]:
    """Return the first matches of a walk, at least `enough` if there are; None: budget spent."""
    seqs: list[int] = []
    walked = 0
    for rows, hits in _walk(db, wanted, start.key, backward=start.backward, inclusive=inclusive):
        walked += rows
        seqs += hits
        if len(seqs) >= enough:
            break
        if budget is not None and walked > budget:
            return None
        yield
    return seqs


def _sort(
    db: sqlite3.Connection,
    scope: Scope,
    seqs: list[int],
    start: Position,
    skip: int,
    n: int,
    inclusive: bool,
) -> list[int]:
    where, values = scope.rest(start.key, start.backward, inclusive)
    order = " DESC" if start.backward else ""
    return json_row(
        db,
        "SELECT json_group_array(seq) FROM (SELECT seq FROM json_each(?)"
        f" CROSS JOIN messages ON seq = value WHERE {where}"
        f" ORDER BY instant{order}, message_id{order} LIMIT ? OFFSET ?)",
        (json.dumps(seqs), *values, n, skip),
    )


def _walk(
    db: sqlite3.Connection, wanted: Search, place: Key, *, backward: bool, inclusive: bool
) -> Iterator[tuple[int, list[int]]]:
    """Walk the scope's rows from a place: yield how many a piece has, and the matching seqs."""
    folded, scope, bound = wanted
    sql, letters, exact = condition(folded)
    value = "m.seq" if exact else "json_array(m.seq, text)"
    order = " DESC" if backward else ""
    size = FIRST_WALK_ROWS
    while True:
        began = time.monotonic()
        where, values = scope.rest(place, backward, inclusive)
        # A statement is a snapshot; between two of them the WAL can be reset.
        rows, last, hits = db.execute(
            "WITH piece AS MATERIALIZED (SELECT seq, instant, message_id"
            f" FROM {scope.table} WHERE {where}"
            f" ORDER BY instant{order}, message_id{order} LIMIT ?)"
            " SELECT (SELECT count(*) FROM piece),"
            " (SELECT json_array(instant, message_id) FROM piece LIMIT 1 OFFSET ?),"
            f" (SELECT json_group_array({value}) FROM piece CROSS JOIN messages AS m"
            f"  ON m.seq = piece.seq WHERE m.seq <= ? AND ({sql}))",
            (*values, size, size - 1, bound, *letters),
        ).fetchone()
        seqs = json.loads(hits)
        if not exact:
            seqs = search.containing(seqs, folded)
        taken = time.monotonic() - began
        yield rows, seqs
        if last is None:
            return
        place, inclusive = Key(*json.loads(last)), False
        size = min(_next_size(size, taken), WALK_ROWS)
