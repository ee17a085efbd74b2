"""What is too old goes, exactly that, and does not come back."""

import random
import sqlite3
from pathlib import Path

import pytest

from lyftr_server.store.limits import Policy
from lyftr_server.store.sqlite import reads, verify
from lyftr_server.store.sqlite.retention import DAY_SECONDS, Retention, backlog
from lyftr_server.store.sqlite.tombstones import Tombstones, forget

from .databases import database, fold_all, insert, message

NOW = 1_800_000_000.0
DAY_US = DAY_SECONDS * 1_000_000


def at(days_ago: float) -> int:
    """Return an instant in microseconds since 1970."""
    return int((NOW - days_ago * DAY_SECONDS) * 1e6)


def retention(
    db: sqlite3.Connection, days: float | None = 30, tombstone_days: float = 7
) -> Retention:
    return Retention(Policy(days, tombstone_days), Tombstones(db))


def expire_all(db: sqlite3.Connection, policy: Retention) -> int:
    total = 0
    while deleted := policy.piece(db, NOW):
        total += deleted
    return total


def ids(db: sqlite3.Connection) -> set[str]:
    return {each for (each,) in db.execute("SELECT message_id FROM messages")}


def test_what_is_older_than_its_days_goes_and_the_rest_stays(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, [message("old")], at(30.001))
        insert(db, [message("young")], at(29.999))
        policy = retention(db)
        assert expire_all(db, policy) == 1
        assert ids(db) == {"young"}


def test_nothing_goes_without_retention(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, [message("old")], 0)
        assert expire_all(db, retention(db, None)) == 0
        assert ids(db) == {"old"}


def test_a_clock_that_went_back_and_forth_leaves_nothing_behind(tmp_path: Path) -> None:
    chance = random.Random(5)
    with database(tmp_path / "app.db") as db:
        ages = {f"m{n}": chance.choice([1, 29.9, 30.1, 31, 400]) for n in range(500)}
        for name, age in ages.items():
            insert(db, [message(name, sender=f"+{age:.0f}")], at(age) + chance.randrange(10**6))
        assert backlog(db, retention(db).cutoff_us(NOW)) == sum(age > 30 for age in ages.values())
        expire_all(db, retention(db))
        assert ids(db) == {name for name, age in ages.items() if age < 30}
        assert reads.total(db) == len(ids(db))
        fold_all(db)
        assert list(verify.problems(db, deep=True)) == []


def test_a_piece_is_as_long_as_it_may_be(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        for start in range(0, 3000, 100):
            insert(db, [message(f"m{n}") for n in range(start, start + 100)], at(40))
        policy = retention(db)
        sizes = []
        while deleted := policy.piece(db, NOW):
            sizes.append(deleted)
        assert sum(sizes) == 3000
        assert sizes[0] == 20
        assert max(sizes) <= 500


def test_an_expired_id_is_buried_for_its_days_and_then_new(tmp_path: Path) -> None:
    with database(tmp_path / "app.db") as db:
        insert(db, [message("old")], at(31))
        policy = retention(db, tombstone_days=7)
        expire_all(db, policy)
        buried = Tombstones(db)
        later = NOW + 7 * DAY_SECONDS
        assert set(buried.buried(db, ["old", "other"], NOW)) == {"old"}
        assert set(buried.buried(db, ["old", "other"], later - 1)) == {"old"}
        assert set(buried.buried(db, ["old", "other"], later)) == set()
        assert forget(db, 10, later - 1) == 0
        assert forget(db, 10, later) == 1


def test_a_tombstone_does_not_tell_the_id(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with database(path) as db:
        Tombstones(db).bury(db, ["wamid-of-somebody"], NOW)
        (found, _) = db.execute("SELECT * FROM tombstones").fetchone()
        assert len(found) == 16
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"wamid-of-somebody" not in path.read_bytes()


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
