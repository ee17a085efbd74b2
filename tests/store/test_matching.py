"""How a search counts: through the fewer rows, once, and exactly whatever is deleted meanwhile."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lyftr_server.records import Message
from lyftr_server.schema import MessageQuery
from lyftr_server.store.cursor import FIRST
from lyftr_server.store.sqlite import listing, matching, reads
from lyftr_server.store.sqlite.listing import Scope

from .databases import database, fold_all, go_on, insert, message
from .test_reads import steps_of


def needles(n: int) -> list[Message]:
    """Return messages that match, one each hour."""
    return [
        message(f"m{i:04}", ts=f"2025-01-{15 + i // 24}T{i % 24:02}:30:00Z", text="needle")
        for i in range(n)
    ]


@pytest.fixture(autouse=True)
def _walking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few rows be many: walked through in pieces, and never sorted."""
    monkeypatch.setattr(matching, "SMALL", 0)
    monkeypatch.setattr(matching, "SORTED", 0)
    monkeypatch.setattr(matching, "WALK_ROWS", (4, 4))


@pytest.mark.parametrize(("since", "total"), [("15T01", 191), ("15T12", 180), ("22T10", 14)])
def test_counting_walks_through_the_fewer_rows_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since: str, total: int
) -> None:
    walked = 0

    def number(search: matching.Search, rows: str, values: list[Any]) -> int:
        nonlocal walked
        walked += search._db.execute(f"SELECT count(*) FROM {rows}", values).fetchone()[0]
        return original(search, rows, values)

    original = matching.Search._number
    monkeypatch.setattr(matching.Search, "_number", number)
    with database(tmp_path / "app.db") as db:
        insert(db, needles(192))
        fold_all(db)
        statements: list[str] = []
        db.set_trace_callback(statements.append)
        query = MessageQuery(q="needle", since=f"2025-01-{since}:00:00Z")
        assert reads.page(db, query, go_on).total == total
    assert walked == min(total, 192 - total)
    # To look for a piece's end by its number is to walk through the piece once more.
    assert not [sql for sql in statements if "OFFSET" in sql and "SELECT instant" in sql]


def test_a_hit_outside_that_is_deleted_meanwhile_counts_nowhere(tmp_path: Path) -> None:
    query = MessageQuery(q="needle", since="2025-01-15T12:00:00Z", limit=1)
    with database(tmp_path / "app.db") as db:

        def total(delete_after: int | None) -> int:
            """Search, and delete what is outside after so many pieces."""
            db.execute("DELETE FROM messages")
            insert(db, needles(40))
            fold_all(db)
            pieces = reads.page_in_pieces(db, query)
            done = 0
            while True:
                if done == delete_after:
                    db.execute("DELETE FROM messages WHERE message_id IN ('m0000', 'm0011')")
                    insert(db, [message("new", ts="2025-01-15T13:00:00Z", text="needle")])
                try:
                    next(pieces)
                except StopIteration as end:
                    return int(end.value.total)
                done += 1

        for delete_after in (None, 1, 2, 3, 4):
            assert total(delete_after) == 28


def test_a_border_is_looked_for_in_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "BUCKETS", 10)
    with database(tmp_path / "app.db") as db:
        days = [f"2025-{month:02}-{day:02}" for month in range(1, 13) for day in range(1, 29)]
        insert(db, [message(f"m{day}", ts=f"{day}T10:00:00Z") for day in days])
        assert listing.border(db, Scope(), FIRST, 3) == ("2025-01-04T10", 3)
        for scope in (Scope(), Scope("+1")):
            for n in (9, 100):
                assert steps_of(db, partial(listing.border, db, scope, FIRST, n)) < 2_000
