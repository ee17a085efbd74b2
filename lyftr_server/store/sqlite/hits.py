"""The rows whose text contains q: found by the index and by looking at texts, kept as bits.

Rows never change and get ever larger seqs; so hits that are found in pieces, each a short snapshot,
are exact for the moment of `bound`, whatever is stored or taken into the index meanwhile. With the
positions that the index keeps, a phrase of trigrams is a substring, and needs no second look.
"""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from . import search
from .letters import CONFUSED, condition
from .sql import json_row, snapshot

# How many rows of the table a piece of a search covers at most: that the index looks through, that
# a scan reads, and that a scan hands over to be folded here. Within that it goes by measured time.
INDEX_ROWS = 200_000
SCAN_ROWS = 100_000
FOLD_ROWS = 2_000
# The index looks for longer phrases by their two ends, and their texts are looked at: what a phrase
# costs it grows with its length and the text's, to a minute for 256 equal letters in such texts.
PHRASE = 16
PHRASE_END = 6
CANDIDATES = 200

# Of the 64 that SQLite's integers have: whole tens.
BITS = 60
_TEN = 0b1111111111
_TENS = "(SELECT 0 AS ten UNION ALL VALUES (10), (20), (30), (40), (50))"
_BITS = "(SELECT 0 AS bit UNION ALL VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9))"


class Hits:
    """A temporary table of one search's own, with a bit for each row: it stays small."""

    def __init__(self, db: sqlite3.Connection, folded: str, bound: int) -> None:
        self.folded = folded
        self.bound = bound
        self.indexed = len(folded) >= 3 and CONFUSED.isdisjoint(folded)
        self.n = 0
        self._db = db
        # The lowest free number: the same statements, which are prepared once.
        taken = {name for (name,) in db.execute("SELECT name FROM temp.sqlite_schema")}
        self.table = next(name for n in range(len(taken) + 1) if (name := f"hits{n}") not in taken)
        db.execute(f"CREATE TEMP TABLE {self.table} (block INTEGER PRIMARY KEY, bits INTEGER)")

    def drop(self, *tables: str) -> None:
        with suppress(sqlite3.ProgrammingError):  # the connection is closed, and they are gone
            for table in tables:
                self._db.execute(f"DROP TABLE IF EXISTS temp.{table}")

    def blocks(self, after: int, n: int) -> int | None:
        """Return the last of the next `n` blocks after one; None when there is no other."""
        (last,) = self._db.execute(
            f"SELECT max(block) FROM (SELECT block FROM {self.table} WHERE block > ?"
            " ORDER BY block LIMIT ?)",
            (after, n),
        ).fetchone()
        return None if last is None else int(last)

    def clear(self) -> None:
        self._db.execute(f"DELETE FROM {self.table}")
        self.n = 0

    def among(self, rows: str) -> str:
        """Return FROM's part for those of `rows`, which have a seq, that are hits."""
        return (
            f"{rows} CROSS JOIN {self.table} ON block = seq / {BITS} AND bits >> seq % {BITS} & 1"
        )

    def messages(self) -> str:
        """Return FROM's part for the messages that are hits: each is read by its seq."""
        # Most have one bit or two: six looks find the tens that have any.
        return (
            f"{self.table} CROSS JOIN {_TENS} ON bits >> ten & {_TEN}"
            f" CROSS JOIN {_BITS} ON bits >> ten + bit & 1"
            f" CROSS JOIN messages NOT INDEXED ON seq = block * {BITS} + ten + bit"
        )

    def find(self, after: int, rows: int) -> int:
        """Take in the hits among the next rows after a seq; return up to which seq."""
        with snapshot(self._db):
            (first,) = self._db.execute(
                "SELECT min(seq) FROM messages WHERE seq > ?", (after,)
            ).fetchone()
            if first is None:
                return self.bound
            # A row that somebody gave a far seq by hand leaves a gap of any size.
            after = max(after, min(first - 1, self.bound))
            watermark = search.watermark(self._db)
            if self.indexed and after < watermark:
                upto = min(self.bound, watermark, after + min(rows, INDEX_ROWS))
                return self._look_up(after, upto)
            exact = condition(self.folded).exact
            upto = min(self.bound, after + min(rows, SCAN_ROWS if exact else FOLD_ROWS))
            self.see("messages NOT INDEXED", "seq > ? AND seq <= ?", [after, upto])
            return upto

    def see(self, rows: str, where: str, values: Sequence[Any]) -> None:
        """Take in those of `rows`, which have a seq and a text, that contain q: look at each."""
        sql, letters, exact = condition(self.folded)
        found = f"SELECT seq, text FROM {rows} WHERE {where} AND ({sql})"
        if exact:
            self._take(found, [*values, *letters])
        else:
            self._fold(found, [*values, *letters])

    def _look_up(self, after: int, upto: int) -> int:
        where = "search MATCH ? AND search.rowid > ? AND search.rowid <= ?"
        if len(self.folded) <= PHRASE:
            if search.deleted(self._db):
                where += " AND search.rowid NOT IN (SELECT seq FROM search_deleted)"
            found = f"SELECT search.rowid AS seq FROM search WHERE {where}"
            self._take(found, (_phrase(self.folded), after, upto))
            return upto
        ends = {_phrase(self.folded[:PHRASE_END]), _phrase(self.folded[-PHRASE_END:])}
        candidates = self._fold(
            "SELECT seq, messages.text FROM search CROSS JOIN messages ON seq = search.rowid"
            f" WHERE {where} ORDER BY search.rowid LIMIT {CANDIDATES}",
            (" AND ".join(sorted(ends)), after, upto),
        )
        return candidates[-1][0] if len(candidates) == CANDIDATES else upto

    def _fold(self, found: str, values: Sequence[Any]) -> list[tuple[int, str]]:
        """Take in those of the rows whose text does match when it is folded here."""
        candidates: list[tuple[int, str]] = json_row(
            self._db, f"SELECT json_group_array(json_array(seq, text)) FROM ({found})", values
        )
        seqs = [seq for seq, text in candidates if self.folded in text.casefold()]
        self._take("SELECT value AS seq FROM json_each(?)", (json.dumps(seqs),))
        return candidates

    def _take(self, found: str, values: Sequence[Any]) -> None:
        # One by one: they come by seq, and sorting them into groups would cost a third more.
        self.n += self._db.execute(
            f"INSERT INTO {self.table} SELECT seq / {BITS}, 1 << seq % {BITS} FROM ({found})"
            " WHERE true ON CONFLICT DO UPDATE SET bits = bits | excluded.bits",
            values,
        ).rowcount


def _phrase(folded: str) -> str:
    return '"' + folded.replace('"', '""') + '"'
