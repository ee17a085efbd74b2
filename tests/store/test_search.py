"""Search: q by the index and by scans, the watermark between them, and its moves."""

import signal
import sqlite3
import unicodedata
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lyftr_server.schema import MAX_QUERY, MAX_TEXT, MessageQuery
from lyftr_server.store import Stopped
from lyftr_server.store.sqlite import hits, matching, reads, search, verify
from lyftr_server.store.sqlite.letters import condition
from lyftr_server.store.sqlite.listing import Scope
from lyftr_server.store.sqlite.sql import answer

from .databases import database, fold_all, go_on, insert, message, reader, texts
from .test_reads import LETTERS
from .test_schema import die


def found(db: sqlite3.Connection, q: str) -> list[str | None]:
    page = reads.page(db, MessageQuery(limit=100, q=q), go_on)
    assert page.total == len(page.data)
    return [row.text for row in page.data]


# -- what matches

EXAMPLES = [
    pytest.param("k", ["\u212a", "K", "k", "ask"], ["c", "ĸ"], id="Kelvin"),
    pytest.param("ss", ["ß", "ẞ", "SS", "ſs", "sß"], ["s", "s s", "ﬆ"], id="sharp s in two"),
    pytest.param("ß", ["ss", "Straße", "STRASSE"], ["s"], id="two by sharp s"),
    pytest.param("s", ["ß", "ſ", "ﬅ", "S"], ["z"], id="one letter inside a folding"),
    pytest.param("strasse", ["Straße", "STRAẞE", "ﬆrasse"], ["strase"], id="across foldings"),
    pytest.param("ffi", ["ﬃ", "ﬀi", "fﬁ", "office"], ["ﬁf"], id="ligatures"),
    pytest.param("i\u0307", ["İ", "i\u0307"], ["i", "I", "ı"], id="dotted capital i"),
    pytest.param("ΣΑΣ", ["σας", "ΣΑΣ", "σασ"], ["σα"], id="final sigma"),
    pytest.param(
        "ι",
        ["ᾳ", "Ι", "\u0345", "ΐ", "ι"],
        ["i", *"ΑΩθκΪα\u0344\u1fbd"],
        id="iota, which 99 letters have",
    ),
    pytest.param("ki", ["ki", "\u212aİ"], ["kﬁ", "kﬂi"], id="not inside a ligature"),
    pytest.param("sk", ["ßk", "ſ\u212a"], ["ﬅk", "ﬆk"], id="not before a ligature's end"),
    pytest.param("ι[", ["ᾳ[", "Ι["], ["ᾳ", "ᾳ]"], id="many letters and bracket"),
    pytest.param("ι*", ["ᾳ*", "Ι*"], ["ᾳ", "ᾳ x"], id="many letters and star"),
    pytest.param("ι?", ["ᾳ?", "Ι?"], ["ᾳ", "ᾳx"], id="many letters and question mark"),
    pytest.param("аб", ["АБ", "аб"], ["ab", "ба"], id="Cyrillic"),
    pytest.param("ꭰ", ["Ꭰ", "ꭰ"], ["D"], id="Cherokee, which folds to capitals"),
    pytest.param("𐐀", ["𐐨", "x𐐀"], ["𐐁"], id="case beyond the first plane"),
    pytest.param("नम", ["नमस्ते"], ["न म"], id="Devanagari"),
    pytest.param("😀", ["a😀b"], ["😁"], id="emoji"),
    pytest.param("%", ["100%"], ["100"], id="percent"),
    pytest.param("_", ["a_b"], ["a-b"], id="underscore"),
    pytest.param("\\", ["a\\b"], ["a/b"], id="backslash"),
    pytest.param("*", ["2*3"], ["2x3"], id="star"),
    pytest.param("?", ["why?"], ["why"], id="question mark"),
    pytest.param("[", ["[1"], ["1]"], id="bracket"),
    pytest.param("]", ["1]"], ["[1"], id="closing bracket"),
    pytest.param("[a", ["x[a]"], ["xa"], id="bracket and letter"),
    pytest.param("^-", ["^-^"], ["-^"], id="not and range"),
    pytest.param("s]", ["ß]", "S]"], ["s["], id="set and bracket"),
    pytest.param('"', ['say "so"'], ["say so"], id="quote"),
    pytest.param('y "S', ['say "so"'], ['say "to'], id="quoted phrase"),
    pytest.param('" OR "', ['a" or "b'], ["a", "or"], id="index's own language"),
    pytest.param("a*b(c)", ["A*B(C)"], ["ab(c)"], id="index's own operators"),
    pytest.param("  x", ["a  x"], ["a x"], id="spaces"),
    pytest.param("\ufffe", ["a\ufffe"], ["\ufffd", "\uffff"], id="a noncharacter"),
    pytest.param("ab\ufffdcd", ["ab\ufffdCD"], ["ab\ufffecd", "ab\uffffcd"], id="replacement"),
    pytest.param("\tx\n", ["a\tX\nb"], ["tx"], id="control characters"),
    pytest.param("ab" * 128, ["AB" * 130], ["ab" * 127 + "a"], id="the longest"),
    pytest.param("ΐ" * MAX_QUERY, ["ΐ" * MAX_QUERY], ["ΐ" * (MAX_QUERY - 1)], id="three each"),
    pytest.param("end", ["x" * (MAX_TEXT - 3) + "End"], ["en", "nd", None, ""], id="long text"),
]


@pytest.mark.parametrize("folded", [True, False], ids=["in the index", "above the watermark"])
@pytest.mark.parametrize(("q", "hits", "misses"), EXAMPLES)
def test_q_is_a_substring_whatever_the_case(
    tmp_path: Path, q: str, hits: list[str], misses: list[str | None], folded: bool
) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts(*misses, *hits))
        if folded:
            fold_all(db)
        assert found(db, q) == hits


@given(
    st.lists(st.text(LETTERS, max_size=6), max_size=30), st.text(LETTERS, min_size=1, max_size=4)
)
@settings(max_examples=300, deadline=None)
def test_a_condition_finds_what_folding_finds(values: list[str], q: str) -> None:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE t (text)")
    db.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
    sql, letters, exact = condition(q.casefold())
    hits = [text for (text,) in db.execute(f"SELECT text FROM t WHERE {sql}", letters)]
    db.close()
    wanted = [value for value in values if q.casefold() in value.casefold()]
    assert hits == wanted if exact else set(hits) >= set(wanted)
    assert exact == (len(q.casefold()) < 3)


@pytest.mark.parametrize(("q", "looks"), [("th", 3), ("st", 6), ("ka", 2), ("пр", 2), ("an", 0)])
def test_a_text_without_rare_letters_is_looked_through_few_times(q: str, looks: int) -> None:
    looked = 0

    def instr(text: str, part: str) -> int:
        nonlocal looked
        looked += 1
        return text.find(part) + 1

    sql, values, _ = condition(q)
    with closing(sqlite3.connect(":memory:")) as db:
        db.create_function("instr", 2, instr)
        found = f"SELECT * FROM (SELECT 'hello' AS text) WHERE {sql}"
        assert db.execute(found, values).fetchall() == []
    assert looked == looks


def test_every_letter_is_found_by_its_folding() -> None:
    # All that Unicode folds: a condition has to name each of them.
    db = sqlite3.connect(":memory:")
    for code in range(0x110000):
        letter = chr(code)
        folded = letter.casefold()
        if unicodedata.category(letter) == "Cs" or folded == letter:
            continue
        sql, letters, _ = condition(folded)
        (hit,) = db.execute(f"SELECT {sql} FROM (SELECT ? AS text)", (*letters, letter)).fetchone()
        assert hit, f"U+{code:04X}"
    db.close()


# -- the watermark


def test_a_search_sees_both_sides_of_the_watermark_and_no_row_that_is_gone(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts(*["needle"] * 6))
        search.fold(db, 3)
        for message_id in ("m0000", "m0005"):
            db.execute("DELETE FROM messages WHERE message_id = ?", (message_id,))
        assert len(found(db, "needle")) == 4
        assert db.execute("SELECT count(*) FROM search_deleted").fetchone() == (1,)
        fold_all(db)
        assert db.execute("SELECT count(*) FROM search_deleted").fetchone() == (0,)
        assert len(found(db, "needle")) == 4
        assert list(verify.problems(db, deep=True)) == []


def test_a_fold_takes_no_more_than_it_may_and_says_when_it_is_done(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts(*["text", None] * 15))
        assert search.backlog(db) == 30
        assert search.fold(db, 7) == 7
        assert search.backlog(db) == 23
        assert search.fold(db) == 23
        assert search.backlog(db) == 0
        assert search.fold(db) == 0


def test_a_fold_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "PIECE_ROWS", 10)
    monkeypatch.setattr(search, "INDEX_SECONDS", 0)
    with database(tmp_path / "app.db") as db:
        insert(db, texts(*["text"] * 30))
        assert search.fold(db) == 10


def test_a_piece_goes_by_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "INDEX_SECONDS", 0)
    with database(tmp_path / "app.db") as db:
        insert(db, texts(*["x" * MAX_TEXT] * 12, *[None, "needle"] * 20))
        assert search.fold(db) == 10
        assert search.fold(db) == 42
        assert len(found(db, "needle")) == 20
        assert list(verify.problems(db, deep=True)) == []


def test_a_fold_takes_in_at_least_as_much_as_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "PIECE_ROWS", 10)
    monkeypatch.setattr(search, "INDEX_SECONDS", 0)
    monkeypatch.setattr(search, "MOST_INDEX_SECONDS", 60)
    with database(tmp_path / "app.db") as db:
        insert(db, texts(*["text"] * 60))
        assert search.fold(db, least_rows=35) == 40
        monkeypatch.setattr(search, "MOST_INDEX_SECONDS", 0)
        assert search.fold(db, least_rows=15) == 10


def test_deleted_long_texts_leave_the_index_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts(*["x" * MAX_TEXT] * 30))
        fold_all(db)
        db.execute("DELETE FROM messages")
        monkeypatch.setattr(search, "INDEX_SECONDS", 0)
        search.fold(db)
        assert db.execute("SELECT count(*) FROM search_deleted").fetchone() == (20,)


def test_a_large_backlog_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "COUNTED", 3)
    with database(tmp_path / "app.db") as db:
        insert(db, texts(*"abcdef"))
        db.execute("DELETE FROM messages WHERE seq = 4")
        assert search.backlog(db) == 6
        search.fold(db, 2)
        assert search.backlog(db) == 4
        search.fold(db, 1)
        assert search.backlog(db) == 2


def test_merging_leaves_few_segments_and_all_matches(tmp_path: Path) -> None:
    def segments() -> int:
        return int(db.execute("SELECT count(DISTINCT segid) FROM search_idx").fetchone()[0])

    with database(tmp_path / "app.db") as db:
        insert(db, texts(*(f"text {n}" for n in range(120))))
        while search.fold(db, 1):
            pass
        while search.merge(db):
            pass
        assert 1 <= segments() < 24
        assert found(db, "text 11") == ["text 11", *(f"text 11{n}" for n in range(10))]
        assert list(verify.problems(db, deep=True)) == []


@pytest.mark.parametrize("statement", range(2, 12))
def test_a_fold_that_is_killed_leaves_the_index_exact(tmp_path: Path, statement: int) -> None:
    path = tmp_path / "app.db"
    with database(path) as db:
        insert(db, texts(*["needle", None, "hay"] * 100))
        search.fold(db, 50)
        db.execute("DELETE FROM messages WHERE seq IN (1, 2, 4, 100)")
    died = die(path, "fold", statement)
    assert died in (0, -signal.SIGKILL)
    with database(path) as db:
        # One that is not killed took in all, or less where the machine is busy.
        backlog = search.backlog(db)
        assert backlog < 249 if died == 0 else backlog == 249
        for _ in range(2):
            assert search_total(db, "needle") == search_total(db, "ee") == 97
            assert list(verify.problems(db, deep=True)) == []
            fold_all(db)


def search_total(db: sqlite3.Connection, q: str) -> int:
    return reads.page(db, MessageQuery(q=q), go_on).total


def test_a_search_is_exact_while_the_watermark_passes_it(tmp_path: Path) -> None:
    """Folds, inserts and deletes between the pieces of one search change nothing of its answer."""
    path = tmp_path / "app.db"
    with database(path) as db, reader(path) as reading:
        insert(db, texts(*["needle", "hay"] * 50))
        moments = 0

        def interfere() -> bool:
            nonlocal moments
            moments += 1
            search.fold(db, 9)
            insert(db, [message(f"new{moments}", text="needle")])
            return False

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hits, "FOLD_ROWS", 10)
            patch.setattr(hits, "INDEX_ROWS", 10)
            with matching.search(reading, "needle", Scope()) as searching:
                answer(searching.find(), interfere)
                assert searching.total == 50
        assert moments > 5


def test_a_search_stops_between_its_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hits, "SCAN_ROWS", 10)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with database(tmp_path / "app.db") as db:
        insert(db, texts(*["x"] * 100))
        with pytest.raises(Stopped):
            reads.page(db, MessageQuery(q="x"), stop)
        assert asked == 4
        assert not db.in_transaction


def test_pieces_of_a_search_go_by_measured_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "PIECE_SECONDS", 0)
    monkeypatch.setattr(matching, "FIRST_ROWS", 4)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return False

    with database(tmp_path / "app.db") as db:
        insert(db, texts(*["a" * MAX_TEXT] * 20))
        fold_all(db)
        for q in ("a" * MAX_QUERY, "a" * 5, "a"):
            asked = 0
            assert reads.page(db, MessageQuery(q=q), stop).total == 20
            assert asked > 16


def test_a_long_phrase_is_looked_up_by_its_ends_and_seen(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        both = "a beginning, and then in the middle something else: the end"
        insert(db, texts(both, both.replace("something", "nothing"), "the end", both.upper()))
        fold_all(db)
        assert found(db, both) == [both, both.upper()]


def test_a_walk_that_meets_nothing_gives_way_to_sorting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "WALK_ROWS", (50, 50))
    monkeypatch.setattr(matching, "SORT_COST", 2)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return False

    with database(tmp_path / "app.db") as db:
        insert(db, texts(*["hay"] * 2500, *["needle"] * 250))
        fold_all(db)
        page = reads.page(db, MessageQuery(limit=10, q="needle"), stop)
    assert [row.message_id for row in page.data] == [f"m{n}" for n in range(2500, 2510)]
    # 2,750 rows would be 55 pieces.
    assert asked < 20


@pytest.mark.parametrize("q", ["needle", "ee"])
def test_a_far_seq_given_by_hand_makes_no_search_long(tmp_path: Path, q: str) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts("needle", "hay"))
        fold_all(db)
        db.execute(
            "INSERT INTO messages (seq, message_id, from_msisdn, to_msisdn, ts, text, created_at)"
            " VALUES (10000000000000, 'z', '+1', '+2', '2025-01-15T10:00:00Z', 'needle', 0)"
        )
        assert found(db, q) == ["needle", "needle"]
        fold_all(db)
        assert found(db, q) == ["needle", "needle"]


@pytest.mark.parametrize("sorted_rows", [0, 100], ids=["many", "few"])
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("sender", [None, "+1"])
def test_no_text_is_looked_at_for_what_the_index_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sorted_rows: int, order: str, sender: str
) -> None:
    def look(_: str) -> None:
        raise AssertionError("a scan")

    monkeypatch.setattr(matching, "SORTED", sorted_rows)
    monkeypatch.setattr(matching, "SMALL", 0)
    monkeypatch.setattr(hits, "condition", look)
    with database(tmp_path / "app.db") as db:
        insert(db, texts(*["needle", "hay"] * 20))
        fold_all(db)
        query = MessageQuery(q="needle", limit=3, order=order, sender=sender)
        wanted = [f"m{n:04}" for n in range(0, 40, 2)][:: 1 if order == "asc" else -1]
        exported = [row.message_id for rows in reads.export(db, query, 3) for row in rows or []]
        assert exported == wanted
        for offset in (0, 10, 18):
            page = reads.page(db, replace(query, offset=offset), go_on)
            assert [row.message_id for row in page.data] == wanted[offset : offset + 3]


def test_an_export_does_without_rows_that_go_and_come_meanwhile(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts(*["needle"] * 12))
        fold_all(db)
        for few in (0, 100):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(matching, "SORTED", few)
                patch.setattr(matching, "SORT_COST", 1)
                exporting = reads.export(db, MessageQuery(q="needle"), 2)
                first = next(rows for rows in exporting if rows)
                db.execute("DELETE FROM messages WHERE message_id BETWEEN 'm0002' AND 'm0008'")
                insert(db, [message("m0010a", text="needle")])
                later = [row.message_id for rows in exporting for row in rows or []]
            assert [row.message_id for row in first] == ["m0000", "m0001"]
            assert later == ["m0009", "m0010", "m0011"]
            db.execute("DELETE FROM messages")
            insert(db, texts(*["needle"] * 12))


def test_a_search_leaves_nothing_behind(tmp_path: Path) -> None:
    def kept() -> int:
        return int(db.execute("SELECT count(*) FROM temp.sqlite_schema").fetchone()[0])

    with database(tmp_path / "app.db") as db:
        insert(db, texts(*["needle", "hay"] * 20))
        two = [reads.export(db, MessageQuery(q="needle"), 2) for _ in range(2)]
        firsts = [next(rows for rows in exporting if rows) for exporting in two]
        assert firsts[0] == firsts[1]
        assert kept() >= 2
        for exporting in two:
            exporting.close()
        assert kept() == 0
        assert len(found(db, "needle")) == 20
        assert kept() == 0
        with pytest.raises(Stopped):
            reads.page(db, MessageQuery(q="needle"), iter([False, True]).__next__)
        assert kept() == 0
