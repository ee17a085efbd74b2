"""Verify: whatever is derived and does not fit is named, and made anew."""

import sqlite3
from pathlib import Path

import pytest

from lyftr_server.schema import MessageQuery
from lyftr_server.store.sqlite import counts, reads, schema, search, verify
from lyftr_server.store.sqlite.tombstones import Tombstones

from .databases import database, fold_all, go_on, insert, message, reader, texts


@pytest.mark.parametrize(
    ("meddle", "named"),
    [
        ("UPDATE day_counts SET n = n + 1", "day_counts"),
        ("DELETE FROM hour_counts", "hour_counts"),
        ("UPDATE sender_counts SET n = n + 1, rank_floor = n + 1", "sender_counts"),
        ("INSERT INTO sender_counts VALUES ('+99', 1, 1, 0)", "sender_counts"),
        ("UPDATE sender_counts SET rank_floor = 0", "rank_floor"),
        ("UPDATE sender_day_counts SET day = '2024-01-01'", "sender_day_counts"),
        ("DELETE FROM recipient_counts", "recipient_counts"),
        ("UPDATE stored_minute_counts SET n = 9", "stored_minute_counts"),
        ("UPDATE stored_minute_counts SET first_seq = 2", "stored_minute_counts does not bound"),
        ("UPDATE distinct_counts SET n = 5 WHERE what = 'senders'", "distinct_counts"),
        ("INSERT INTO search_deleted VALUES (1, 'x')", "search_deleted"),
        ("UPDATE search_state SET watermark = 9", "watermark"),
        ("UPDATE search_state SET watermark = 2", "search index"),
        ("INSERT INTO search (rowid, text) VALUES (3, 'extra')", "search index"),
        ("INSERT INTO search (search, rowid, text) VALUES ('delete', 1, 'one')", "search index"),
    ],
)
def test_what_does_not_fit_is_named_and_made_anew(tmp_path: Path, meddle: str, named: str) -> None:
    path = tmp_path / "app.db"
    with database(path) as db, reader(path) as reading:
        insert(db, texts("one", "two"))
        insert(db, texts("one", "two", "three"))
        fold_all(db)
        assert list(verify.problems(reading, deep=True)) == []
        db.execute(meddle)
        assert any(named in problem for problem in verify.problems(reading, deep=True))
        said: list[str] = []
        verify.rebuild(db, said.append)
        assert "filling sender_counts" in said
        assert list(verify.problems(reading, deep=True)) == []
        of_the_index = named in ("search_deleted", "watermark", "search index")
        assert search.backlog(db) == (3 if of_the_index else 0)
        fold_all(db)
        assert list(verify.problems(reading, deep=True)) == []


def test_messages_are_counted_in_pieces_and_busy_senders_by_day(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        rows = [message(f"m{n}", sender="+1" if n % 50 else "+2") for n in range(2100)]
        insert(db, rows, count=False)
        # With the 512th message, the 1,024th, and so on: within the same statement.
        assert counts.waiting(db) == 2100 % counts.FOLD_ROWS
        # One that is counted goes, and one that is not.
        db.execute("DELETE FROM messages WHERE message_id IN ('m0', 'm2099')")
        assert list(verify.problems(db, deep=False)) == []
        assert counts.waiting(db) == 51
        assert counts.fold(db, 40) == 40
        db.execute("DELETE FROM messages WHERE message_id IN ('m1', 'm2098')")
        assert [counts.fold(db, 40) for _ in range(2)] == [10, 0]
        assert list(verify.problems(db, deep=False)) == []
        # A row far above all others, as by hand.
        db.execute("UPDATE sqlite_sequence SET seq = 1 << 40")
        insert(db, [message("near"), message("far")], count=False)
        assert counts.waiting(db) == 1
        assert list(verify.problems(db, deep=False)) == []
        assert db.execute("SELECT from_msisdn, n FROM sender_counts WHERE by_day").fetchall() == [
            ("+1", 2056),
            ("+2", 41),
        ]
        with pytest.raises(sqlite3.IntegrityError, match="leave it out"):
            db.execute(
                "INSERT INTO messages (seq, message_id, from_msisdn, to_msisdn, ts, created_at)"
                " VALUES (5000, 'x', '+1', '+2', '2025-01-01T00:00:00Z', 0)"
            )


def test_what_rose_from_its_tombstone_is_named(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts("one", "two", "three"), 100_000_000)
        assert list(verify.problems(db, deep=False)) == []
        # m0000 was let in before its time was over, m0001 after it.
        tombstones = Tombstones(db)
        tombstones.bury(db, ["m0000", "gone"], 200)
        tombstones.bury(db, ["m0001"], 100)
        named = "1 messages are stored that were buried then"
        assert list(verify.problems(db, deep=False)) == [named]


@pytest.mark.parametrize(
    ("meddle", "named"),
    [
        ("DELETE FROM keys WHERE name = 'tombstone'", "no key for the tombstones"),
        ("INSERT INTO tombstones VALUES (x'00', 1)", "tombstones: 1 rows are no keyed hashes"),
    ],
)
def test_tombstones_that_bury_nothing_are_named(tmp_path: Path, meddle: str, named: str) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts("one"))
        db.execute(meddle)
        assert named in "; ".join(verify.problems(db, deep=False))


def test_the_figures_tell_of_tombstones_and_free_pages(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts(*("text " * 100 for _ in range(100))))
        Tombstones(db).bury(db, ["gone", "too"], 200)
        assert verify.figures(db).startswith("2 tombstones; 0 of ")
        db.execute("DELETE FROM messages")
        free = int(verify.figures(db).split()[2])
        assert free > 5


def test_a_shallow_look_leaves_the_search_index_out(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts("one", "two"))
        db.execute("UPDATE search_state SET watermark = 2")
        assert list(verify.problems(db, deep=False)) == []


def test_a_damaged_page_is_named(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with database(path) as db:
        insert(db, texts(*(f"text {n}" for n in range(500))))
        (page,) = db.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'messages_by_sender'"
        ).fetchone()
        (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * page_bytes + 8)
        file.write(b"\0" * 200)
    with reader(path) as db:
        assert "malformed" in " ".join(verify.problems(db, deep=False))
        assert not db.in_transaction


@pytest.mark.parametrize("counted", [True, False], ids=["counted", "sampled"])
def test_a_start_notices_counts_that_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: bool
) -> None:
    if not counted:
        monkeypatch.setattr(verify, "COUNTED_ROWS", 1)
    with database(tmp_path / "app.db") as db:
        assert verify.counts_fit(db)
        insert(db, texts("one", "two"))
        insert(db, [message("later", ts="2025-01-18T10:00:00Z")])
        assert verify.counts_fit(db)
        db.execute("DELETE FROM messages WHERE message_id = 'm0000'")
        assert verify.counts_fit(db)
        db.execute("DELETE FROM hour_counts WHERE hour LIKE '%-18T%'")
        assert not verify.counts_fit(db)
        verify.rebuild(db, lambda step: None)
        assert verify.counts_fit(db)
        db.execute("UPDATE sender_counts SET n = n + 1, rank_floor = n + 1")
        assert not verify.counts_fit(db)


def test_a_rebuild_that_fails_changes_nothing(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts("one", "two"))
        fold_all(db)

        def fail(step: str) -> None:
            if "recipient" in step:
                raise BrokenPipeError

        with pytest.raises(BrokenPipeError):
            verify.rebuild(db, fail)
        assert list(verify.problems(db, deep=True)) == []
        assert search.backlog(db) == 0


def test_searches_are_exact_while_a_rebuilt_index_fills(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts(*["needle", "hay"] * 40))
        fold_all(db)
        search.forget(db)
        while True:
            assert reads.page(db, MessageQuery(q="needle"), go_on).total == 40
            if not search.fold(db, 17):
                break


@pytest.mark.parametrize("how", ["REPLACE", "IGNORE", "FAIL"])
def test_a_row_that_is_inserted_again_by_hand_changes_nothing(tmp_path: Path, how: str) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts("one", "two"))
        fold_all(db)
        before = db.execute("SELECT * FROM messages").fetchall()
        db.execute(
            f"INSERT OR {how} INTO messages"
            " (message_id, from_msisdn, to_msisdn, ts, text, created_at)"
            " SELECT message_id, '+9', '+9', '2024-01-01T00:00:00Z', 'other', 1 FROM messages"
        )
        assert db.execute("SELECT * FROM messages").fetchall() == before
        assert list(verify.problems(db, deep=True)) == []


def test_a_rebuild_keeps_an_index_that_is_right(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts("one", "two"))
        fold_all(db)
        db.execute("UPDATE day_counts SET n = 7")
        verify.rebuild(db, lambda step: None)
        assert search.backlog(db) == 0
        assert list(verify.problems(db, deep=True)) == []


@pytest.mark.parametrize(
    "damage",
    [
        "INSERT INTO search (rowid, text) VALUES (1, 'other words')",
        "DELETE FROM search_data WHERE id > 10",
        "UPDATE search_state SET watermark = 1",
        "INSERT INTO search_deleted VALUES (2, 'two')",
    ],
)
def test_a_rebuild_empties_an_index_that_is_wrong(tmp_path: Path, damage: str) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts("one", "two"))
        fold_all(db)
        db.execute(damage)
        verify.rebuild(db, lambda step: None)
        assert search.backlog(db) == 2
        fold_all(db)
        assert list(verify.problems(db, deep=True)) == []


def test_a_rebuild_writes_which_folding_the_index_has(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts("one", "two"))
        fold_all(db)
        db.execute("UPDATE search_state SET unicode = 'another'")
        verify.rebuild(db, lambda step: None)
        fold_all(db)
        schema.migrate(db)
        assert search.backlog(db) == 0
