"""What is too old goes, exactly that, and does not come back."""

import asyncio
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lyftr_server.records import Delivery, Event, Message, Refusal, Result
from lyftr_server.schema import EventQuery, RefusedQuery
from lyftr_server.signature import keyed_hash
from lyftr_server.store import MessageStore
from lyftr_server.store.limits import Policy
from lyftr_server.store.sqlite import keeping, verify
from lyftr_server.store.sqlite.tombstones import Tombstones

from .databases import database, insert, message
from .keepers import NOW, Keeper, PostgresKeeper, SqliteKeeper
from .test_postgres import Database

pytestmark = pytest.mark.every_database

DAY_SECONDS = 86_400
MONTH = Policy(retention_days=30, tombstone_days=7)


def at(days_ago: float) -> int:
    """Return an instant in microseconds since 1970."""
    return int((NOW - days_ago * DAY_SECONDS) * 1e6)


@pytest.fixture
def keeper(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Keeper]:
    if engine == "sqlite":
        with database(tmp_path / "app.db") as db:
            yield SqliteKeeper(db)
    else:
        with postgres_database(request.getfixturevalue("postgres_url")) as found:
            yield PostgresKeeper(found)


@contextmanager
def postgres_database(url: str) -> Iterator[Database]:
    found = Database(url)
    try:
        found.clear()
        yield found
    finally:
        found.close()


def test_what_is_older_than_its_days_goes_and_the_rest_stays(keeper: Keeper) -> None:
    keeper.insert([message("old")], at(30.001))
    keeper.insert([message("young")], at(29.999))
    assert sum(keeper.expire(MONTH)) == 1
    assert keeper.ids() == {"young"}


def test_nothing_goes_without_retention(keeper: Keeper) -> None:
    keeper.insert([message("old")], 0)
    assert keeper.expire(Policy(None)) == []
    assert keeper.ids() == {"old"}


def test_a_clock_that_went_back_and_forth_leaves_nothing_behind(keeper: Keeper) -> None:
    chance = random.Random(5)
    ages = {f"m{n}": chance.choice([1, 29.9, 30.1, 31, 400]) for n in range(300)}
    for name, age in ages.items():
        keeper.insert([message(name, sender=f"+{age:.0f}")], at(age) + chance.randrange(10**6))
    assert keeper.backlog(MONTH) == sum(age > 30 for age in ages.values())
    keeper.expire(MONTH)
    assert keeper.ids() == {name for name, age in ages.items() if age < 30}
    assert keeper.backlog(MONTH) == 0
    keeper.check()


def test_a_piece_is_short(keeper: Keeper) -> None:
    for start in range(0, 1500, 100):
        keeper.insert([message(f"m{n}") for n in range(start, start + 100)], at(40))
    sizes = keeper.expire(MONTH)
    assert sum(sizes) == 1500
    assert max(sizes) <= 500


def test_an_expired_id_is_buried_for_its_days_and_then_new(keeper: Keeper) -> None:
    keeper.insert([message("old")], at(31))
    keeper.expire(MONTH)
    later = NOW + 7 * DAY_SECONDS
    just_before = int((later - 1) * 1e6)
    assert keeper.insert([message("old"), message("other")], just_before) == [
        "duplicate",
        "created",
    ]
    assert keeper.expire(Policy(None), later - 1) == []
    assert keeper.insert([message("old")], int(later * 1e6)) == ["created"]
    assert keeper.expire(Policy(None), later) == [1]
    assert list(keeper.stones()) == []


def test_a_tombstone_is_the_ids_keyed_hash(keeper: Keeper) -> None:
    keeper.insert([message("wamid-of-somebody")], at(31))
    keeper.expire(MONTH)
    wanted = keyed_hash(keeper.key(), b"wamid-of-somebody")[:16]
    assert list(keeper.stones()) == [(wanted, int(NOW + 7 * DAY_SECONDS))]


async def test_a_server_lets_go_of_what_expired(
    new_store: Callable[..., MessageStore],
) -> None:
    event = Event("status.read", None, "{}")
    both = Delivery("whatsapp", (Message(*message("m1")),), ("{}",), (event,))
    first = new_store()
    await first.open()
    await first.insert(both)
    await first.refuse(Refusal("native", "conflict", "r1", None, "[]", b"{}"))
    await first.close()
    second = new_store(policy=Policy(retention_days=1e-9, tombstone_days=1))
    await second.open()
    try:
        async with asyncio.timeout(30):
            while (  # noqa: ASYNC110 - nobody is told
                await second.total()
                or (await second.events(EventQuery())).data
                or (await second.refused(RefusedQuery())).data
            ):
                await asyncio.sleep(0.02)
        assert await second.insert(both._replace(events=())) == Result.DUPLICATE
        assert await second.total() == 0
    finally:
        await second.close()


@pytest.mark.one_engine
@pytest.mark.parametrize("many", [0, 3, 20_000])
def test_every_buried_id_is_known_again_after_a_restart(tmp_path: Path, many: int) -> None:
    with database(tmp_path / "app.db") as db:
        first = Tombstones(db)
        names = [f"m{n}" for n in range(many)]
        first.bury(db, names, NOW + 1)
        for buried in (first, Tombstones(db)):
            for start in range(0, many, 500):
                asked = names[start : start + 500] + [f"x{n}" for n in range(start, start + 500)]
                assert set(buried.buried(db, asked, NOW)) == set(names[start : start + 500])


def made_by_0_1_0(path: Path) -> None:
    with sqlite3.connect(path, isolation_level=None) as db:
        db.executescript(Path(__file__).with_name("version1.sql").read_text())
    db.close()


@pytest.mark.one_engine
def test_a_file_gives_free_pages_back(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with database(path) as db:
        insert_much(db)
        full = pages(db)
        db.execute("DELETE FROM messages")
        while keeping.shrink(db, path):
            pass
        assert pages(db) < full / 2


@pytest.mark.one_engine
def test_a_file_of_0_1_0_is_made_anew_once_when_little_is_left_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "app.db"
    made_by_0_1_0(path)
    with database(path) as db:
        insert_much(db)
        full = pages(db)
        assert not keeping.shrink(db, path)
        assert pages(db) == full  # nothing is free
        db.execute("DELETE FROM messages WHERE seq % 10")
        monkeypatch.setattr(keeping, "ANEW_PAGES", 10)
        keeping.shrink(db, path)
        assert pages(db) == full  # too much to do it beside deliveries
        monkeypatch.undo()
        assert not keeping.shrink(db, path)
        assert pages(db) < full / 3
        assert list(verify.problems(db, deep=True)) == []
        # From now on a piece at a time.
        insert_much(db, "again")
        db.execute("DELETE FROM messages")
        assert keeping.shrink(db, path)


def insert_much(db: sqlite3.Connection, prefix: str = "m") -> None:
    for start in range(0, 4000, 100):
        texts = [message(f"{prefix}{n}", text="x" * 500) for n in range(start, start + 100)]
        insert(db, texts)


def pages(db: sqlite3.Connection) -> int:
    (count,) = db.execute("PRAGMA page_count").fetchone()
    return int(count)
