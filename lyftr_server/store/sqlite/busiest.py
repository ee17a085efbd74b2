"""The busiest senders, remembered from one look to the next.

A sender's count rises with new messages alone, and they have ever larger seqs. So who came behind
the last of those that are remembered, and has sent nothing since, still does, whatever was deleted
meanwhile: a look counts those that are remembered and those that have sent. Among hundreds of
thousands of senders that are alike, only the first look looks at all of them.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from .sql import json_row

TOP = 10
KEPT = 200
# Of more that are new since the last look, each is counted anew.
MOST_NEW = 20_000

Rank = tuple[int, str]  # sorts the busiest first, ties by number


class Busiest:
    """For one database, and one thread."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._last: Rank | None = None  # no other sender comes before it; None: there is no other
        self._seq = 0  # of the last message that was counted

    def top(self, db: sqlite3.Connection) -> list[tuple[str, int]]:
        """Return the busiest senders and how many messages each has, in the caller's snapshot."""
        (counted,) = db.execute("SELECT seq FROM counted").fetchone()
        ranks = None
        if self._kept and counted - self._seq <= MOST_NEW:
            ranks = self._remembered(db)
        if ranks is None:
            ranks, self._last = _all(db), None
        if len(ranks) >= KEPT:
            ranks, self._last = ranks[:KEPT], ranks[KEPT - 1]
        self._kept, self._seq = [sender for _, sender in ranks], counted
        return [(sender, -n) for n, sender in ranks[:TOP]]

    def _remembered(self, db: sqlite3.Connection) -> list[Rank] | None:
        """Rank those that are remembered, and those that have sent since; None: too few are left.

        Those that fell behind the last one are forgotten: others may be before them.
        """
        ranks = _ranks(
            db,
            "SELECT value FROM json_each(?)"
            " UNION SELECT from_msisdn FROM messages NOT INDEXED WHERE seq > ?",
            (json.dumps(self._kept), self._seq),
        )
        if self._last is None:
            return ranks
        ranks = [rank for rank in ranks if rank <= self._last]
        return ranks if len(ranks) >= TOP else None


def _all(db: sqlite3.Connection) -> list[Rank]:
    """Rank all senders, as far as they are remembered.

    n lies in rank_floor .. 2 * rank_floor - 1. So each of the first has at least the last one's
    rank_floor, and its own rank_floor is more than half of that. Those with messages that wait to
    be counted may overtake them.
    """
    likely = (
        "WHERE rank_floor > coalesce((SELECT rank_floor FROM sender_counts"
        f" ORDER BY rank_floor DESC LIMIT 1 OFFSET {KEPT - 1}), 0) / 2"
    )
    # To look each of them up costs four times as much as to read on.
    (many,) = db.execute(
        f"SELECT EXISTS (SELECT 1 FROM sender_counts {likely} LIMIT 1"
        " OFFSET (SELECT n / 4 FROM distinct_counts WHERE what = 'senders'))"
    ).fetchone()
    return _ranks(
        db,
        f"SELECT * FROM (SELECT from_msisdn FROM sender_counts {'' if many else likely}"
        f" ORDER BY n DESC, from_msisdn LIMIT {KEPT}) UNION SELECT from_msisdn FROM uncounted",
        (),
    )


def _ranks(db: sqlite3.Connection, whom: str, values: Sequence[Any]) -> list[Rank]:
    """Rank senders, all that have messages which wait to be counted among them."""
    ranks = json_row(
        db,
        f"WITH whom (from_msisdn) AS ({whom})"
        " SELECT json_group_array(json_array(-n, from_msisdn)) FROM ("
        "  SELECT from_msisdn, sum(n) AS n FROM ("
        "   SELECT from_msisdn, n FROM whom CROSS JOIN sender_counts USING (from_msisdn)"
        "   UNION ALL SELECT from_msisdn, 1 FROM uncounted) GROUP BY 1)",
        values,
    )
    return sorted((n, sender) for n, sender in ranks)
