"""What PostgreSQL's engine promises by itself: its functions on a real server, and its failures."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lyftr_server.records import Delivery, Message, Result
from lyftr_server.schema import Invalid, MessageQuery, TimelineQuery
from lyftr_server.store.folding import folding_hash, folds_alike
from lyftr_server.store.postgres import (
    following,
    reads,
    schema,
    search,
    sender_days,
    tombstones,
    upkeep,
)
from lyftr_server.store.postgres.hosts import host, urls
from lyftr_server.store.postgres.insert import Options, Slot, insert
from lyftr_server.store.postgres.tombstones import Seen

from ..postgres import PostgresServer
from .databases import MINUTE_US, message
from .model import DAY_US, Model
from .test_reads import LETTERS, MESSAGE, MOMENT, QUERY
from .test_search import EXAMPLES

TABLES = (
    "messages, deltas, hour_counts, sender_counts, sender_day_counts, recipient_counts,"
    " minute_counts, search, indexed, slots, events, refused, tombstones, erasures, erased"
)

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Database:
    """A connection, with the loop that it lives on."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self.db: Any = self.run(asyncpg.connect(url))
        self.last: dict[int, int] = {}
        self.seen = Seen()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)

    def clear(self) -> None:
        self.seen = self.run(tombstones.seen(self.db))
        self.run(self.db.execute(f"TRUNCATE {TABLES} RESTART IDENTITY"))
        self.run(self.db.execute("INSERT INTO slots SELECT n FROM generate_series(0, 2) AS n"))
        self.last = dict.fromkeys(range(3), 0)

    def insert(
        self,
        messages: list[Message],
        now_us: int | None = 0,
        slot: int = 0,
        *,
        by_content: bool = False,
    ) -> list[Result]:
        batch = [Delivery("native", (each,)) for each in messages]
        options = Options(now_us=now_us, by_content=by_content, seen=self.seen)
        results, self.last[slot] = self.run(
            insert(self.db, batch, Slot(slot, self.last[slot]), options)
        )
        return list(results)

    def close(self) -> None:
        self.run(self.db.close())
        self._loop.close()


@pytest.fixture
def database(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    # A few rows take every path.
    monkeypatch.setattr(sender_days, "BUSY", 3)
    monkeypatch.setattr(search, "MANY", 2)
    database = Database(postgres_url)
    database.clear()
    yield database
    database.close()


# -- every answer, over random histories

STEP = st.one_of(
    st.tuples(
        st.just("insert"), st.lists(MESSAGE, min_size=1, max_size=6), MOMENT, st.integers(0, 2)
    ),
    st.tuples(st.just("delete"), MESSAGE.map(lambda message: message.message_id)),
    st.tuples(st.just("fold"), st.sampled_from([1, 3, 1000])),
    st.tuples(st.just("index"), st.sampled_from([1, 3, 1000])),
)


@given(st.lists(STEP, max_size=20), st.lists(QUERY, min_size=1, max_size=10), MOMENT)
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_answer_is_the_models(
    database: Database, steps: list[tuple[Any, ...]], queries: list[MessageQuery], now_us: int
) -> None:
    database.clear()
    model = Model()
    for step in steps:
        match step:
            case "insert", messages, at_us, slot:
                model.insert(messages, at_us)
                database.insert(messages, at_us, slot)
            case "delete", message_id:
                model.delete(message_id)
                sql = "DELETE FROM messages WHERE message_id = $1"
                database.run(database.db.execute(sql, message_id))
            case "fold", most:
                database.run(upkeep.fold(database.db, most))
            case "index", most:
                database.run(upkeep.index(database.db, most))
    assert database.run(reads.stats(database.db, now_us)) == model.stats(now_us)
    for query in queries:
        check_page(database, model, query)
        check_walk(database, model, query)
        check_stored(database, model, query)
        check_timeline(database, model, query)


def check_page(database: Database, model: Model, query: MessageQuery) -> None:
    expected = model.matching(query)
    page = database.run(reads.page(database.db, query))
    assert page.total == len(expected)
    assert page.data == expected[query.offset : query.offset + query.limit]
    assert (page.next_cursor is None) == (query.offset + query.limit >= len(expected))
    assert (page.previous_cursor is None) == (query.offset == 0 or not expected)


def check_walk(database: Database, model: Model, query: MessageQuery) -> None:
    """Go to the end by cursors, and back."""
    expected = model.matching(query)
    seen: list[Message] = []
    query = replace(query, offset=0)
    page = database.run(reads.page(database.db, query))
    while True:
        seen += page.data
        if page.next_cursor is None:
            break
        page = database.run(reads.page(database.db, replace(query, cursor=page.next_cursor)))
    assert seen == expected
    back = list(page.data)
    while page.previous_cursor is not None:
        page = database.run(reads.page(database.db, replace(query, cursor=page.previous_cursor)))
        back = [*page.data, *back]
    assert back == expected
    assert database.run(reads.chunk(database.db, query, None, 1000)) == expected


def check_stored(database: Database, model: Model, query: MessageQuery) -> None:
    """Go through the order of storing, whose end is never told."""
    query = replace(query, offset=0, order="stored")
    seen: list[Message] = []
    while (page := database.run(reads.page(database.db, query))).data:
        seen += page.data
        query = replace(query, cursor=page.next_cursor)
    expected = model.matching(replace(query, order="asc"))
    assert page.total == len(seen) == len(expected)
    assert sorted(seen) == sorted(expected)


def check_timeline(database: Database, model: Model, query: MessageQuery) -> None:
    for by in ("hour", "day"):
        asked = TimelineQuery(
            by, query.since or "2025-01-15T09:30:00Z", query.until or "2025-01-16T00:00:01Z"
        )
        assert database.run(reads.timeline(database.db, asked)) == model.timeline(asked)


@pytest.mark.parametrize("indexed", [True, False], ids=["in the index", "above the watermark"])
def test_q_is_a_substring_whatever_the_case(database: Database, indexed: bool) -> None:
    for example in EXAMPLES:
        q, hits, misses = example.values
        database.clear()
        rows = [message(f"m{n:04}", text=text) for n, text in enumerate([*misses, *hits])]
        database.insert(rows)
        while indexed and database.run(upkeep.index(database.db)):
            pass
        page = database.run(reads.page(database.db, MessageQuery(limit=100, q=q)))
        assert [row.text for row in page.data] == hits, example.id
        assert page.total == len(hits)


@given(
    st.lists(st.text(LETTERS, max_size=6), max_size=20), st.text(LETTERS, min_size=1, max_size=4)
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_search_finds_what_folding_finds(database: Database, texts: list[str], q: str) -> None:
    database.clear()
    database.insert([message(f"m{n:04}", text=text) for n, text in enumerate(texts)])
    database.run(upkeep.index(database.db, 10))
    page = database.run(reads.page(database.db, MessageQuery(limit=100, q=q)))
    assert [row.text for row in page.data] == [t for t in texts if q.casefold() in t.casefold()]


# -- created, duplicate, conflict


def test_a_repeat_is_told_from_another_message_with_its_id(database: Database) -> None:
    one, other = message("m1"), message("m1", text="Other")
    assert database.insert([one, one, other]) == ["created", "duplicate", "conflict"]
    assert database.insert([other]) == ["conflict"]
    assert database.insert([one], slot=1) == ["duplicate"]
    stored = database.run(reads.message(database.db, "m1"))
    assert stored.message == one
    assert database.run(database.db.fetchval("SELECT count(*) FROM refused")) == 2


def test_by_content_another_id_is_a_duplicate(database: Database) -> None:
    def deliver(*messages: Message) -> list[Result]:
        return database.insert(list(messages), by_content=True)

    assert deliver(message("m2"), message("m1")) == ["created", "duplicate"]
    assert deliver(message("m3"), message("m4", text=None)) == ["duplicate", "created"]
    # One that is a conflict anyway keeps no other from being stored.
    assert deliver(message("m2", text="x"), message("m9", text="x")) == ["conflict", "created"]
    assert database.run(reads.total(database.db)) == 3


def test_every_commit_writes(database: Database) -> None:
    """What writes nothing does not wait for a standby."""
    database.insert([message("m1")])
    before = database.run(database.db.fetchval("SELECT pg_current_wal_insert_lsn()"))
    database.insert([message("m1")])
    after = database.run(database.db.fetchval("SELECT pg_current_wal_insert_lsn()"))
    assert after > before


# -- the order of storing


def test_a_follower_misses_nothing_and_sees_nothing_twice(database: Database) -> None:
    seen: list[str] = []
    place = database.run(following.head(database.db))
    for n in range(30):
        database.insert([message(f"a{n}"), message(f"b{n}")], now_us=None, slot=n % 3)
        if n % 4 == 0:
            rows, places = database.run(following.follow(database.db, MessageQuery(), place, 5))
            seen += [row.message_id for row in rows]
            place = places[-1] if places else place
    while True:
        rows, places = database.run(following.follow(database.db, MessageQuery(), place, 5))
        if not rows:
            break
        seen += [row.message_id for row in rows]
        place = places[-1]
    assert sorted(seen) == sorted(f"{x}{n}" for n in range(30) for x in "ab")
    assert place == database.run(following.head(database.db))
    assert [s for s in seen if s[0] == "a"] == [f"a{n}" for n in range(30)]


@pytest.mark.parametrize("place", ["", "x", "1.", "-1", "99999", "0.0.0.1", "1" * 20])
def test_a_place_that_was_never_given_is_refused(database: Database, place: str) -> None:
    database.insert([message("m1")])
    with pytest.raises(Invalid):
        database.run(following.follow(database.db, MessageQuery(), place, 5))


# -- the schema


def test_servers_that_start_at_once_migrate_once(postgres: PostgresServer) -> None:
    async def start(url: str) -> None:
        db = await asyncpg.connect(url)
        try:
            await schema.migrate(db)
        finally:
            await db.close()

    async def start_all(url: str) -> None:
        await asyncio.gather(*(start(url) for _ in range(8)))

    with postgres.database("template0") as url:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(start_all(url))
        loop.close()


def test_a_newer_schema_is_refused(database: Database) -> None:
    database.run(database.db.execute("UPDATE lyftr SET version = version + 1"))
    with pytest.raises(schema.NewerDatabase, match="install a later one"):
        database.run(schema.migrate(database.db))


def test_another_programs_table_is_left_alone(postgres: PostgresServer) -> None:
    with postgres.database("template0") as url:
        database = Database(url)
        try:
            database.run(database.db.execute("CREATE TABLE messages (diary text)"))
            with pytest.raises(schema.ForeignDatabase):
                database.run(schema.migrate(database.db))
        finally:
            database.close()


@pytest.mark.parametrize(
    "before, kept",
    [("another folding", False), ("15.0.0", folds_alike("15.0.0")), (folding_hash(), True)],
)
def test_texts_are_folded_anew_only_when_letters_fold_in_another_way(
    database: Database, before: str, kept: bool
) -> None:
    database.insert([message(f"m{n}", text="Straße") for n in range(2500)])
    database.run(upkeep.index(database.db))
    sql = f"UPDATE lyftr SET unicode = '{before}'; UPDATE messages SET folded = 'x'"
    database.run(database.db.execute(sql))
    indexed = database.run(database.db.fetchval("SELECT count(*) FROM search"))
    database.run(schema.migrate(database.db))
    found = database.run(database.db.fetchval("SELECT count(*) FROM search"))
    assert (found, indexed) == (1000 if kept else 0, 1000)
    again = database.run(database.db.fetchval("SELECT count(*) FROM messages WHERE folded = 'x'"))
    assert again == (2500 if kept else 0)
    assert database.run(database.db.fetchval("SELECT unicode FROM lyftr")) == folding_hash()
    if not kept:
        assert database.run(reads.page(database.db, MessageQuery(q="STRASSE"))).total == 2500


def test_each_host_of_a_url_is_tried_by_itself() -> None:
    assert urls("postgresql://me:p@a:1,b/db?x=1") == [
        "postgresql://me:p@a:1/db?x=1",
        "postgresql://me:p@b/db?x=1",
    ]
    assert urls("postgresql:///db?host=/run") == ["postgresql:///db?host=/run"]


def test_a_host_is_named_without_what_may_be_of_a_password() -> None:
    assert host("postgresql://me:p@ss@a:1/db") == "a:1"
    assert host("postgresql:///db?host=/run") == "the default host"


def test_counts_by_minute_are_exact(database: Database) -> None:
    for n, at in enumerate([0, MINUTE_US - 1, MINUTE_US, DAY_US]):
        database.insert([message(f"m{n}")], at)
    database.run(upkeep.fold(database.db))
    for now, expected in ((DAY_US, 4), (DAY_US + 1, 3), (DAY_US + MINUTE_US, 2)):
        assert database.run(reads.stats(database.db, now))["messages_last_24h"] == expected
