"""A search: which messages contain q, how many, and pages of them in the listing's order.

One plan, whatever is asked. First the hits, by seq: those of all messages by the index or a scan,
or, where reading the scope's own messages costs less, those alone. Then a walk through the scope on
the covering index, which reads no text, and meets the hits in order: it counts them (or those
outside the scope, where there is less to walk through), and finds the page. Few hits are soon read
instead, into an order of their own, and the walk goes there: at once when counting would cost more,
and when a page was not met for as long as that takes. So no answer costs more than twice what the
best way would.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...records import Message
from ..cursor import LAST, Key, Position
from ..pages import Found, beside, found
from . import hits, listing
from .hits import Hits
from .listing import Scope
from .sql import Pieces, snapshot

# A piece is to take so long: whatever it covers, the next covers as much less or more.
PIECE_SECONDS = 0.02
FIRST_ROWS = 250
# To look at a text by its seq costs as much as so many in a scan, and to read a row into an order
# of its own as much as so many steps of a walk.
READ_COST = 10
SORT_COST = 20
# A scope of so few rows is read without asking what else would cost.
SMALL = 2_000
# No more are read into an order of their own, which is kept in memory.
SORTED = 100_000
# What a piece covers at first and at most: steps of a walk, and rows of a scope that are looked at.
WALK_ROWS = (50_000, 200_000)
TEXT_ROWS = (250, 20_000)
# Blocks of hits that are read in one piece.
SORT_BLOCKS = 250


@contextmanager
def search(db: sqlite3.Connection, q: str, scope: Scope) -> Iterator["Search"]:
    """Begin a search. Rows that are stored later are left for the next one."""
    with snapshot(db):
        (bound,) = db.execute("SELECT coalesce(max(seq), 0) FROM messages").fetchone()
        begun = Search(db, scope, Hits(db, q.casefold(), bound))
    try:
        yield begun
    finally:
        begun.close()


class Search:
    """A search, and what it has found so far."""

    def __init__(self, db: sqlite3.Connection, scope: Scope, hits: Hits) -> None:
        self.scope = scope
        self.total = 0
        self._db = db
        self._hits = hits
        self._n = 0
        self._everything = listing.count(db, Scope())
        self._rows = listing.count(db, scope)
        self._order = f"{hits.table}_in_order"
        self._sorted = False
        self._start = Position(False, scope.first)

    def close(self) -> None:
        self._hits.drop(self._order, self._hits.table)

    def has(self, key: Key) -> bool:
        """Tell whether a place is that of a message."""
        at = "SELECT 1 FROM messages WHERE message_id = ? AND instant = ?"
        return self._db.execute(at, (key.message_id, key.instant)).fetchone() is not None

    # -- the hits, and their number

    def find(self) -> Pieces[None]:
        """Find all hits, and say how many match."""
        alone = yield from self._find_hits()
        self._n = self._hits.n
        if alone or self.scope == Scope():
            self.total = self._n
        elif self._n <= SORTED and SORT_COST * self._n < self._rows:
            self.total = yield from self._sort()
        else:
            self.total = yield from self._count()

    def _count(self) -> Pieces[int]:
        """Count the scope's hits, or all the others, whichever rows are fewer to walk through."""
        scope, others = self.scope, self._everything - self._rows
        if scope.sender is None and others < self._rows:
            before = yield from self._count_in(Scope(until=scope.since))
            after = yield from self._count_in(Scope(since=scope.until))
            if not self._lost():
                return self._n - before - after
            # What was deleted meanwhile may have been a hit on either side.
        return (yield from self._count_in(scope))

    def _count_in(self, scope: Scope) -> Pieces[int]:
        met = 0

        def look(rows: str, values: Sequence[Any]) -> bool:
            nonlocal met
            met += self._number(rows, values)
            return False

        for _ in self._walk(look, Position(False, scope.first), inclusive=True, scope=scope):
            yield
        return met

    def _lost(self) -> bool:
        """Tell whether a row has been deleted since the search began."""
        with snapshot(self._db):
            (new,) = self._db.execute(
                "SELECT count(*) FROM messages NOT INDEXED WHERE seq > ?", (self._hits.bound,)
            ).fetchone()
            return listing.count(self._db, Scope()) < self._everything + int(new)

    def _find_hits(self) -> Pieces[bool]:
        """Find all hits; tell whether none is of another scope."""
        after, rows = 0, FIRST_ROWS
        while after < self._hits.bound:
            cost = self._hits.n if self._hits.indexed else self._everything
            if self.scope != Scope() and self._rows <= max(SMALL, cost // READ_COST):
                self._hits.clear()
                for _ in self._walk(self._see, self._start, inclusive=True, sizes=TEXT_ROWS):
                    yield
                return True
            began = time.monotonic()
            after = self._hits.find(after, rows)
            rows = _next_size(rows, time.monotonic() - began, hits.INDEX_ROWS)
            yield
        return False

    def _see(self, rows: str, values: Sequence[Any]) -> bool:
        joined = f"{rows} CROSS JOIN messages NOT INDEXED USING (seq)"
        self._hits.see(joined, "seq <= ?", [*values, self._hits.bound])
        return False

    def _number(self, rows: str, values: Sequence[Any]) -> int:
        (met,) = self._db.execute(f"SELECT count(*) FROM {self._met(rows)}", values).fetchone()
        return int(met)

    def _met(self, rows: str) -> str:
        return rows if self._sorted else self._hits.among(rows)

    def _sort(self) -> Pieces[int]:
        """Read the scope's hits into an order of their own; return how many there are."""
        self._db.execute(
            f"CREATE TEMP TABLE {self._order} (instant TEXT, message_id TEXT, seq INTEGER,"
            " PRIMARY KEY (instant, message_id)) WITHOUT ROWID"
        )
        where, values = self.scope.where(
            "instant >= ? AND instant < ?", self.scope.since, self.scope.until
        )
        n, after = 0, -1
        while (upto := self._hits.blocks(after, SORT_BLOCKS)) is not None:
            n += self._db.execute(
                f"INSERT INTO {self._order} SELECT instant, message_id, seq"
                f" FROM {self._hits.messages()} WHERE block > ? AND block <= ? AND {where}",
                (after, upto, *values),
            ).rowcount
            after = upto
            yield
        self._sorted = True
        return n

    # -- the walk

    def _walk(
        self,
        look: Callable[[str, Sequence[Any]], bool],
        start: Position,
        *,
        inclusive: bool,
        sizes: tuple[int, int] | None = None,
        scope: Scope | None = None,
    ) -> Iterator[int]:
        """Let `look` have the scope's rows on one side of a place until it has enough.

        A piece is FROM's part for rows with a seq, and its parameters. Yield how many it had.
        """
        left = listing.count(self._db, scope) if scope else self._rows
        scope = scope or self.scope
        table = scope.table
        if self._sorted:
            table, scope = self._order, scope._replace(sender=None)
        order = " DESC" if start.backward else ""
        place = start.key
        size, most = sizes or WALK_ROWS
        while True:
            began = time.monotonic()
            with snapshot(self._db):
                ends, border = left <= size * 3 // 2, None
                if not (ends or start.backward or self._sorted):
                    border = listing.border(self._db, scope, place, size)
                piece = scope._replace(until=border[0]) if border else scope
                where, values = piece.rest(place, start.backward, inclusive)
                rest = (
                    f"FROM {table} WHERE {where} ORDER BY instant{order}, message_id{order} LIMIT ?"
                )
                if look(f"(SELECT seq {rest})", [*values, -1 if ends or border else size]) or ends:
                    return
                if border:
                    # Amid an hour its rows would be too many: the last piece must not be large.
                    left -= 0 if place.message_id else border[1]
                    place = Key(border[0], "")
                else:
                    # It walks through the piece once more.
                    last = self._db.execute(
                        f"SELECT instant, message_id {rest} OFFSET ?", (*values, 1, size - 1)
                    ).fetchone()
                    if last is None:
                        return
                    place, left = Key(*last), left - size
            inclusive, walked = False, size
            size = _next_size(size, time.monotonic() - began, most)
            yield walked

    def page(
        self, start: Position, skip: int, n: int, *, inclusive: bool = False
    ) -> Pieces[list[Message]]:
        """Return `n` matches on one side of a place, without the first `skip`; ascending."""
        rows = yield from self._meet(start, skip, n, inclusive)
        if rows is None:
            yield from self._sort()
            rows = (yield from self._meet(start, skip, n, inclusive)) or []
        return rows[::-1] if start.backward else rows

    def _meet(
        self, start: Position, skip: int, n: int, inclusive: bool
    ) -> Pieces[list[Message] | None]:
        """Walk until the matches are met; None when sorting all would have cost no more."""
        found: list[Message] = []

        def look(rows: str, values: Sequence[Any]) -> bool:
            nonlocal skip
            if skip and skip >= (met := self._number(rows, values)):
                skip -= met
                return False
            rest = f"(SELECT seq FROM {self._met(rows)} LIMIT -1 OFFSET ?)"
            found.extend(listing.rows_of(self._db, rest, (*values, skip), n - len(found)))
            skip = 0
            return len(found) == n

        sortable = not self._sorted and self._n <= SORTED
        budget = SORT_COST * self._n if sortable else self._rows
        first, most = WALK_ROWS
        sizes = max(1, min(first, budget)), max(1, min(most, budget))
        for walked in self._walk(look, start, inclusive=inclusive, sizes=sizes):
            budget -= walked
            if sortable and budget <= 0:
                return None
            yield
        return found


def _next_size(rows: int, taken_seconds: float, most: int) -> int:
    if taken_seconds < PIECE_SECONDS / 2:
        return min(4 * rows, most)
    return max(1, int(rows * min(1.0, PIECE_SECONDS / taken_seconds)))


# -- pages


def at_offset(search: Search, offset: int, limit: int) -> Pieces[Found]:
    """Return the matches from number `offset` on."""
    total, first = search.total, search.scope.first
    n = min(limit, total - offset)
    if n <= 0:
        return Found([], None, LAST if total else None)
    # From the nearer end.
    backward = offset > total // 2
    skip = total - offset - n if backward else offset
    place = LAST if backward else first
    data = yield from search.page(Position(backward, place), skip, n, inclusive=True)
    return found(data, place, more=offset + n < total, before=offset > 0)


def at_position(search: Search, start: Position, limit: int) -> Pieces[Found]:
    """Return the matches after a place, or the nearest before it."""
    data = yield from search.page(start, 0, limit + 1)
    more = len(data) > limit
    if more:
        del data[0 if start.backward else -1]
    # The row that gave the place its name matched then, and rows do not change.
    behind = search.has(start.key)
    if not behind:
        other = Position(not start.backward, start.key)
        behind = bool((yield from search.page(other, 0, 1, inclusive=True)))
    return beside(data, start, more=more, behind=behind)
