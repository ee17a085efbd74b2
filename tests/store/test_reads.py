"""Pages, totals and statistics against a plain Python model, over random histories."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lyftr_server.records import Message, StoredMessage
from lyftr_server.schema import Invalid, MessageQuery, TimelineQuery
from lyftr_server.store import Stopped
from lyftr_server.store.cursor import key_of
from lyftr_server.store.sqlite import (
    busiest,
    counts,
    hits,
    matching,
    reads,
    search,
    timeline,
    verify,
)
from lyftr_server.store.sqlite.busiest import Busiest

from .databases import MINUTE_US, database, go_on, insert, message, reader, texts
from .model import DAY_US, Model

# -- random histories, from alphabets so small that everything meets everything else

# Letters that fold to two or three, that fold to the same, that combine; GLOB's and LIKE's own.
LETTERS = "aAkKiIsSßẞſİıﬁﬅΣσςΐ😀\u0307\u093eक%_*?[]^-\\\"' "
TEXT = st.text(LETTERS, max_size=7) | st.sampled_from(["Straße", "ΟΔΟΣ οδός", "kiss", "a" * 40])
MESSAGE = st.builds(
    Message,
    st.sampled_from([f"{letter}{n}" for letter in "aé😀" for n in range(8)]),
    st.sampled_from(["+1", "+2", "+3"]),
    st.sampled_from(["+1", "+2"]),
    st.sampled_from(
        [
            "2025-01-15T10:00:00Z",
            "2025-01-15T10:00:00.000Z",
            "2025-01-15T10:00:00.5Z",
            "2025-01-15T10:59:59.999999999Z",
            "2025-01-15T11:00:00Z",
            "2025-01-16T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
        ]
    ),
    st.none() | TEXT,
)
MOMENT = st.sampled_from([0, MINUTE_US - 1, MINUTE_US, DAY_US, DAY_US + 1])
STEP = st.one_of(
    st.tuples(st.just("insert"), st.lists(MESSAGE, min_size=1, max_size=6), MOMENT),
    st.tuples(st.just("delete"), MESSAGE.map(lambda message: message.message_id)),
    st.tuples(st.just("count"), st.sampled_from([1, 2, 5, 1000])),
    st.tuples(st.just("fold"), st.sampled_from([1, 3, 1000])),
    st.tuples(st.just("merge")),
)
QUERY = st.builds(
    MessageQuery,
    limit=st.sampled_from([1, 2, 5, 100]),
    offset=st.sampled_from([0, 1, 3, 8, 2**63 - 1]),
    sender=st.sampled_from([None, None, "+1", "+4"]),
    since=st.sampled_from(
        [None, None, "2025-01-15T10:00:00.00Z", "2025-01-15T10:00:00.50Z", "2025-01-15T12:00:00Z"]
    ),
    until=st.sampled_from([None, None, "2025-01-15T10:59:59.999999999Z", "2025-01-15T11:00:00Z"]),
    order=st.sampled_from(["asc", "desc"]),
    q=st.none() | st.text(LETTERS, min_size=1, max_size=4) | st.sampled_from(["SS", "σας"]),
)


@pytest.mark.slow
@given(st.lists(STEP, max_size=25), st.lists(QUERY, min_size=1, max_size=12), MOMENT, st.data())
@settings(
    max_examples=150,
    deadline=None,
    # The tuned constants are the same for every example.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@pytest.mark.parametrize("pieces", ["whole", "small"])
def test_every_answer_is_the_models(
    pieces: str,
    tuned: None,
    steps: list[tuple[Any, ...]],
    queries: list[MessageQuery],
    now_us: int,
    data: st.DataObject,
) -> None:
    with TemporaryDirectory() as directory, database(Path(directory) / "app.db") as db:
        model = Model()
        ask_after = data.draw(st.integers(0, len(steps)))
        with reader(Path(directory) / "app.db") as reading:
            for n, step in enumerate(steps):
                if n == ask_after:
                    check(reading, model, queries, now_us)
                play(db, model, step)
            check(reading, model, queries, now_us)
            assert list(verify.problems(reading, deep=True)) == []
            assert verify.counts_fit(reading)


@pytest.fixture
def tuned(pieces: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a dozen rows take every way that a search of millions may take."""
    if pieces == "small":
        monkeypatch.setattr(matching, "SMALL", 0)
        monkeypatch.setattr(matching, "READ_COST", 2)
        monkeypatch.setattr(matching, "SORT_COST", 2)
        monkeypatch.setattr(matching, "SORTED", 4)
        monkeypatch.setattr(matching, "WALK_ROWS", (2, 3))
        monkeypatch.setattr(matching, "TEXT_ROWS", (1, 2))
        monkeypatch.setattr(matching, "SORT_BLOCKS", 1)
        monkeypatch.setattr(hits, "BITS", 3)
        monkeypatch.setattr(hits, "SCAN_ROWS", 4)
        monkeypatch.setattr(hits, "FOLD_ROWS", 3)
        monkeypatch.setattr(hits, "INDEX_ROWS", 5)
        monkeypatch.setattr(hits, "PHRASE", 3)
        monkeypatch.setattr(hits, "PHRASE_END", 3)
        monkeypatch.setattr(hits, "CANDIDATES", 2)


def play(db: sqlite3.Connection, model: Model, step: tuple[Any, ...]) -> None:
    match step:
        case ("insert", messages, now_us):
            insert(db, messages, now_us, count=False)
            model.insert(messages, now_us)
        case ("delete", message_id):
            db.execute("DELETE FROM messages WHERE message_id = ?", (message_id,))
            model.delete(message_id)
        case ("count", rows):
            counts.fold(db, rows)
        case ("fold", rows):
            search.fold(db, rows)
        case ("merge",):
            search.merge(db)


def check(db: sqlite3.Connection, model: Model, queries: list[MessageQuery], now_us: int) -> None:
    assert reads.stats(db, now_us + DAY_US) == model.stats(now_us + DAY_US)
    assert reads.total(db) == len(model.rows)
    for message_id in ("a1", *list(model.rows)[:2]):
        stored = model.rows.get(message_id)
        wanted = stored and StoredMessage(stored[0], "native", stored[1])
        assert reads.message(db, message_id) == wanted
    for query in queries:
        check_pages(db, query, model.matching(query))
        check_order_of_storing(db, replace(query, offset=0, order="stored"), model)


def check_pages(db: sqlite3.Connection, query: MessageQuery, rows: list[Message]) -> None:
    """Check a page, the pages on either side of it, and the same rows as an export has them."""
    start, end = min(query.offset, len(rows)), min(query.offset + query.limit, len(rows))
    page = reads.page(db, query, go_on)
    assert page.data == rows[start:end]
    assert page.total == len(rows)
    assert (page.next_cursor is None) == (end == len(rows))
    assert (page.previous_cursor is None) == (start == 0)
    if page.next_cursor:
        beside = replace(query, offset=0, cursor=page.next_cursor, limit=2)
        following = reads.page(db, beside, go_on)
        assert following.data == rows[end : end + 2]
        assert following.total == len(rows)
        assert (following.next_cursor is None) == (end + 2 >= len(rows))
        assert following.previous_cursor is not None
    if page.previous_cursor:
        beside = replace(query, offset=0, cursor=page.previous_cursor, limit=2)
        preceding = reads.page(db, beside, go_on)
        assert preceding.data == rows[max(0, start - 2) : start]
        assert (preceding.previous_cursor is None) == (start <= 2)
        assert (preceding.next_cursor is None) == (start == len(rows) and not rows[start:])
    chunks = [chunk for chunk in reads.export(db, query, 2) if chunk]
    assert all(len(chunk) <= 2 for chunk in chunks)
    assert [row for chunk in chunks for row in chunk] == rows
    if rows:
        later = reads.export(db, query, 2, key_of(rows[0]))
        assert [row for chunk in later if chunk for row in chunk] == rows[1:]


def check_order_of_storing(db: sqlite3.Connection, query: MessageQuery, model: Model) -> None:
    """Check that following the cursor meets every row once, and then nothing, for ever."""
    rows = model.matching(query)
    seen: list[Message] = []
    while True:
        page = reads.page(db, query, go_on)
        assert page.total == len(rows)
        assert page.next_cursor is not None
        if not page.data:
            break
        seen += page.data
        query = replace(query, cursor=page.next_cursor)
    assert seen == rows


# -- what random histories meet too seldom


def many(n: int) -> list[Message]:
    """Return messages of some hours and days, of which one sender has half."""
    return [
        message(
            f"m{i:05d}",
            sender="+1" if i % 2 else f"+{2 + i % 50}",
            ts=f"2025-01-{1 + i * 4 // n:02d}T{i * 7 % 24:02d}:{i % 60:02d}:00Z",
            text=f"text {i}",
        )
        for i in range(n)
    ]


@pytest.mark.parametrize(
    "query",
    [
        pytest.param(MessageQuery(limit=3), id="all"),
        pytest.param(MessageQuery(limit=3, sender="+1"), id="sender"),
        pytest.param(MessageQuery(limit=3, since="2025-01-02T07:03:00Z"), id="since"),
        pytest.param(MessageQuery(limit=3, sender="+1", since="2025-01-02T07:03:00Z"), id="both"),
        pytest.param(MessageQuery(limit=3, until="2025-01-03T05:00:30Z"), id="until"),
        pytest.param(
            MessageQuery(
                limit=3, sender="+1", since="2025-01-02T07:03:00Z", until="2025-01-04T00:00:00Z"
            ),
            id="a sender's days",
        ),
        pytest.param(MessageQuery(limit=3, q="text 1"), id="q"),
        pytest.param(MessageQuery(limit=3, sender="+1", q="1"), id="short q of a sender"),
    ],
)
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_every_offset_of_a_long_listing(tmp_path: Path, query: MessageQuery, order: str) -> None:
    query = replace(query, order=order)
    model = Model()
    model.insert(many(600), 0)
    rows = model.matching(query)
    with database(tmp_path / "app.db") as db:
        insert(db, many(600))
        while search.backlog(db) > 200:
            search.fold(db, 100)
        for offset in range(0, len(rows) + 3, 1 if query.q is None else 7):
            page = reads.page(db, replace(query, offset=offset), go_on)
            assert (page.data, page.total) == (rows[offset : offset + 3], len(rows))


@pytest.mark.parametrize("q", [None, "text", "t"])
def test_cursors_neither_skip_nor_repeat_while_messages_arrive(
    tmp_path: Path, q: str | None
) -> None:
    model = Model()

    def arrive(db: sqlite3.Connection, messages: list[Message]) -> None:
        insert(db, messages, count=False)
        model.insert(messages, 0)

    with database(tmp_path / "app.db") as db:
        arrive(db, many(40))
        seen: list[Message] = []
        cursor = None
        while True:
            page = reads.page(db, MessageQuery(limit=3, q=q, cursor=cursor), go_on)
            seen += page.data
            if page.next_cursor is None:
                break
            cursor = page.next_cursor
            n = len(seen)
            arrive(db, [message(f"early{n}", ts="2024-01-01T00:00:00Z", text="text")])
            if n < 30:
                arrive(db, [message(f"late{n}", ts=f"2025-02-01T00:00:{n:02d}Z", text="text")])
            search.fold(db, 5)
            counts.fold(db, 4)
        rows = model.matching(MessageQuery(q=q))
        assert seen == [row for row in rows if not row.message_id.startswith("early")]
        before = rows[: rows.index(page.data[0])]
        back: list[Message] = []
        cursor = page.previous_cursor
        while cursor:
            page = reads.page(db, MessageQuery(limit=3, q=q, cursor=cursor), go_on)
            back = [*page.data, *back]
            cursor = page.previous_cursor
        assert back == before


def test_a_cursor_outlives_the_row_that_it_names(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts("one", "two", "three", "four"))
        for q in (None, "o"):
            query = MessageQuery(limit=2, q=q)
            cursor = reads.page(db, query, go_on).next_cursor
            assert cursor is not None
            db.execute("DELETE FROM messages WHERE message_id = 'm0001'")
            page = reads.page(db, replace(query, cursor=cursor), go_on)
            assert page.data[-1].message_id == "m0003"
            assert page.previous_cursor is not None
            insert(db, [message("m0001", text="two")])


def test_a_page_that_lost_its_rows_leads_back(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts("one", "two", "three"))
        for q in (None, "e"):
            query = MessageQuery(limit=1, q=q)
            first = reads.page(db, query, go_on)
            db.execute("DELETE FROM messages WHERE message_id <> 'm0000'")
            empty = reads.page(db, replace(query, cursor=first.next_cursor), go_on)
            assert (empty.data, empty.next_cursor) == ([], None)
            back = reads.page(db, replace(query, cursor=empty.previous_cursor), go_on)
            assert back.data == first.data
            insert(db, texts("one", "two", "three"))


@pytest.mark.parametrize("q", [None, "e", "text"])
def test_leading_back_does_not_lead_out_of_the_listing(tmp_path: Path, q: str | None) -> None:
    with database(tmp_path / "app.db") as db:
        rows = [message(f"m{n}", ts=f"2025-01-15T10:00:0{n}Z", text="text") for n in range(4)]
        insert(db, rows)
        query = MessageQuery(limit=1, offset=1, since=rows[1].ts, q=q)
        page = reads.page(db, query, go_on)
        assert page.data == [rows[2]]
        db.execute("DELETE FROM messages WHERE message_id = 'm1'")
        empty = reads.page(db, replace(query, offset=0, cursor=page.previous_cursor), go_on)
        assert (empty.data, empty.previous_cursor) == ([], None)
        onward = reads.page(db, replace(query, offset=0, cursor=empty.next_cursor), go_on)
        assert onward.data == [rows[2]]
        assert onward.previous_cursor is None


def test_the_top_ten_among_many_senders(tmp_path: Path) -> None:
    model = Model()
    with database(tmp_path / "app.db") as db:
        for n in range(1, 40):
            rows = [message(f"{n}-{i}", sender=f"+{n % 13}", recipient=f"+{i}") for i in range(n)]
            insert(db, rows)
            model.insert(rows, 0)
            assert reads.stats(db, 0) == model.stats(0)
        for n in range(39, 1, -1):
            for i in range(n):
                db.execute("DELETE FROM messages WHERE message_id = ?", (f"{n}-{i}",))
                model.delete(f"{n}-{i}")
            assert reads.stats(db, 0) == model.stats(0)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("insert"), st.lists(st.integers(0, 8), min_size=1, max_size=9)),
            st.tuples(st.just("delete"), st.integers(0, 60)),
            st.just(("look", 0)),
        ),
        max_size=30,
    ),
    st.sampled_from([2, 4, 100]),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_busiest_senders_are_remembered_rightly(steps: list[Any], most_new: int) -> None:
    model, made = Model(), 0
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(busiest, "TOP", 2)
        patch.setattr(busiest, "KEPT", 3)
        patch.setattr(busiest, "MOST_NEW", most_new)
        remembering = Busiest()
        with database(Path(directory) / "app.db") as db:
            for step, value in steps:
                if step == "insert":
                    rows = [message(f"{made + n}", f"+{each}") for n, each in enumerate(value)]
                    made += len(rows)
                    insert(db, rows, count=made % 2 == 0)
                    model.insert(rows, 0)
                elif step == "delete":
                    db.execute("DELETE FROM messages WHERE message_id = ?", (str(value),))
                    model.delete(str(value))
                else:
                    wanted = model.stats(0)["messages_per_sender"][:2]
                    found = [{"from": sender, "count": n} for sender, n in remembering.top(db)]
                    assert found == wanted


def test_the_busiest_among_senders_that_are_alike_are_found_without_a_walk(
    tmp_path: Path,
) -> None:
    with database(tmp_path / "app.db") as db:
        for start in range(0, 6000, 1000):
            insert(db, [message(f"m{n}", f"+{n:04}") for n in range(start, start + 1000)])
        remembering, steps = Busiest(), []
        for n in range(3):
            insert(db, [message(f"new{n}", f"+{5000 + n}")])
            db.execute("DELETE FROM messages WHERE message_id = ?", (f"m{n}",))
            steps.append(steps_of(db, lambda: remembering.top(db)))
            (first, count), second, *_ = remembering.top(db)
            assert (first, count, second[1]) == ("+5000", 2, 2 if n else 1)
        assert max(steps[1:]) < 15_000 < steps[0] < 60_000


HOUR = st.integers(0, 23).map(lambda hour: f"2025-01-15T{hour:02}:30:00Z")
TIME = HOUR | st.sampled_from(
    ["2025-01-15T11:00:00Z", "2025-01-15T11:00:00.000000001Z", "2025-01-16T00:00:00Z"]
)


@given(
    st.lists(TIME, max_size=12),
    st.builds(
        TimelineQuery,
        by=st.sampled_from(["hour", "day"]),
        since=st.none() | TIME,
        until=st.none() | TIME,
    ),
)
@settings(max_examples=150, deadline=None)
def test_a_timeline_is_the_models(times: list[str], query: TimelineQuery) -> None:
    rows = [message(f"m{n}", ts=ts) for n, ts in enumerate(times)]
    model = Model()
    model.insert(rows, 0)
    with TemporaryDirectory() as directory, database(Path(directory) / "app.db") as db:
        if rows:
            insert(db, rows)
        assert timeline.timeline(db, query) == model.timeline(query)


@pytest.mark.parametrize("edge", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
@pytest.mark.parametrize("by", ["hour", "day"])
def test_a_timeline_reaches_both_ends_of_time(tmp_path: Path, edge: str, by: str) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, [message(ts=edge)])
        found = timeline.timeline(db, TimelineQuery(by=by))
        assert found[-1][1] == 1
        assert found[-1][0][:10] == edge[:10]
        assert timeline.timeline(db, TimelineQuery(by=by, since=edge, until=edge))[1:] == []


def test_a_timeline_has_a_thousand_buckets_at_most(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, [message(ts="2025-01-15T10:00:00Z")])
        query = TimelineQuery(by="day", since="2022-04-22T00:00:00Z")
        assert len(timeline.timeline(db, query)) == 1000
        with pytest.raises(Invalid):
            timeline.timeline(db, replace(query, since="2022-04-21T23:59:59Z"))


def test_the_last_day_is_counted_to_the_microsecond(tmp_path: Path) -> None:
    cutoff = 5 * MINUTE_US + 17
    with database(tmp_path / "app.db") as db:
        for n, at in enumerate((cutoff - 1, cutoff, cutoff + 1, 6 * MINUTE_US, 4 * MINUTE_US)):
            insert(db, [message(f"m{n}")], at)
        assert reads.stats(db, cutoff + DAY_US)["messages_last_24h"] == 3


def test_a_read_stops_when_asked(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, texts("one", "two"))
        for query in (MessageQuery(), MessageQuery(q="o"), MessageQuery(q="one")):
            with pytest.raises(Stopped):
                reads.page(db, query, lambda: True)
        assert not db.in_transaction


def test_the_listing_never_walks_the_table(tmp_path: Path) -> None:
    """Deep pages and totals take the steps that their counts leave over, at any depth."""
    with database(tmp_path / "app.db") as db:
        insert(db, many(2400)[:1200])
        insert(db, many(2400)[1200:])
        steps = {}
        for offset in (0, 1200, 2390):
            for sender in (None, "+1"):
                for since in (None, "2025-01-02T07:03:00Z"):
                    query = MessageQuery(limit=5, offset=offset // 4, sender=sender, since=since)
                    steps[query] = steps_of(db, partial(reads.page, db, query, go_on))
                    turned = replace(query, order="desc", until="2025-01-04T05:03:00Z")
                    steps[turned] = steps_of(db, partial(reads.page, db, turned, go_on))
    assert max(steps.values()) < 8000, steps


@pytest.mark.parametrize("sender", [None, "+1"])
def test_since_near_the_start_of_a_full_hour_is_counted_from_there(
    tmp_path: Path, sender: str | None
) -> None:
    rows = [message(f"m{n}", ts=f"2025-01-15T10:{n % 60:02}:00Z") for n in range(3000)]
    with database(tmp_path / "app.db") as db:
        insert(db, rows)
        for minute, total in ((0, 3000), (2, 2900), (29, 1550), (30, 1500), (58, 100)):
            query = MessageQuery(limit=1, since=f"2025-01-15T10:{minute:02}:00Z", sender=sender)
            assert reads.page(db, query, go_on).total == total
            if minute in (2, 58) and sender is None:
                assert steps_of(db, partial(reads.page, db, query, go_on)) < 3000


def steps_of(db: sqlite3.Connection, work: Callable[[], object]) -> int:
    """Return how many of SQLite's virtual machine instructions `work` takes, to the hundred."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 100
        return 0

    db.set_progress_handler(count, 100)
    work()
    db.set_progress_handler(None, 0)
    return taken
