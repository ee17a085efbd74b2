"""What keeps less, by its plain functions on a real database: the same questions to each engine."""

import sqlite3
from collections.abc import Collection, Sequence
from typing import Protocol

from lyftr_server.records import Message, Result
from lyftr_server.store.limits import Limits, Policy
from lyftr_server.store.postgres import reads as postgres_reads
from lyftr_server.store.postgres import retention as postgres_retention
from lyftr_server.store.sqlite import reads, retention, tombstones, verify
from lyftr_server.store.sqlite.insert import insert

from ..process import native
from .databases import count_all, fold_all
from .test_postgres import Database

NOW = 1_800_000_000.0
KEY = "SELECT key FROM keys WHERE name = 'tombstone'"


class Keeper(Protocol):
    def insert(self, messages: Sequence[Message], at_us: int) -> Sequence[Result]: ...

    def expire(self, policy: Policy, now: float = NOW) -> list[int]:
        """Let go of what has expired; return how much each piece took."""

    def backlog(self, policy: Policy) -> int: ...

    def ids(self) -> set[str]: ...

    def stones(self) -> Collection[tuple[bytes, int]]: ...

    def key(self) -> bytes: ...

    def check(self) -> None:
        """Hold that all counts fit."""


class SqliteKeeper:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._tombstones = tombstones.Tombstones(db)

    def insert(self, messages: Sequence[Message], at_us: int) -> Sequence[Result]:
        batch = [native(each) for each in messages]
        found = insert(self._db, batch, Limits(), self._tombstones, at_us)
        # As an idle moment does: what has expired is found by the counts.
        count_all(self._db)
        return found.results

    def expire(self, policy: Policy, now: float = NOW) -> list[int]:
        retired = retention.Retention(policy, self._tombstones)
        return list(iter(lambda: retired.piece(self._db, now), 0))

    def backlog(self, policy: Policy) -> int:
        return retention.Retention(policy, self._tombstones).backlog(self._db, NOW)

    def ids(self) -> set[str]:
        return {each for (each,) in self._db.execute("SELECT message_id FROM messages")}

    def stones(self) -> Collection[tuple[bytes, int]]:
        return self._db.execute("SELECT hash, until FROM tombstones").fetchall()

    def key(self) -> bytes:
        return bytes(self._db.execute(KEY).fetchone()[0])

    def check(self) -> None:
        assert reads.total(self._db) == len(self.ids())
        fold_all(self._db)
        assert list(verify.problems(self._db, deep=True)) == []


class PostgresKeeper:
    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, messages: Sequence[Message], at_us: int) -> Sequence[Result]:
        return self._database.insert(list(messages), at_us)

    def expire(self, policy: Policy, now: float = NOW) -> list[int]:
        retired = postgres_retention.Retention(policy, self._database.seen.pads)
        run, db = self._database.run, self._database.db
        return list(iter(lambda: run(retired.piece(db, now)), 0))

    def backlog(self, policy: Policy) -> int:
        retired = postgres_retention.Retention(policy, self._database.seen.pads)
        return int(self._database.run(retired.backlog(self._database.db, NOW)))

    def ids(self) -> set[str]:
        found = self._database.run(self._database.db.fetch("SELECT message_id FROM messages"))
        return {each for (each,) in found}

    def stones(self) -> Collection[tuple[bytes, int]]:
        sql = "SELECT hash, until FROM tombstones"
        return [tuple(each) for each in self._database.run(self._database.db.fetch(sql))]

    def key(self) -> bytes:
        return bytes(self._database.run(self._database.db.fetchval(KEY)))

    def check(self) -> None:
        assert self._database.run(postgres_reads.total(self._database.db)) == len(self.ids())
