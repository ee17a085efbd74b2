"""Several servers on one database, and connections cut in the middle of a commit: once each."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from lyftr_server.records import Delivery, Event, Message, Refusal, Result
from lyftr_server.store import StoreError
from lyftr_server.store.postgres.store import PostgresStore

from ..postgres import COUNTS_THAT_DIFFER, query
from .databases import message

SERVERS = 4
MESSAGES = 300


@asynccontextmanager
async def opened(*urls: str, **options: Any) -> AsyncIterator[list[PostgresStore]]:
    """Open a server's store for each URL."""
    async with AsyncExitStack() as stack:
        stores = [PostgresStore(url, **options) for url in urls]
        for store in stores:
            await store.open()
            stack.push_async_callback(store.close)
        yield stores


def deliveries(chance: random.Random) -> list[Delivery]:
    """Return what several servers get at once: messages alone, together, with events, as events."""

    def own(*ids: int) -> tuple[Message, ...]:
        return tuple(message(f"m{n:03}", text=f"text {n}") for n in ids)

    def event(n: int) -> Event:
        return Event("status.read", None, f'{{"n": {n}}}')

    return [
        *(Delivery("native", own(n)) for n in range(MESSAGES)),
        # Together with others, in an order of their own.
        *(Delivery("native", own(*chance.sample(range(MESSAGES), 3))) for _ in range(20)),
        *(Delivery("whatsapp", own(MESSAGES + n), ("{}",), (event(n),)) for n in range(10)),
        *(Delivery("whatsapp", events=(event(n), event(9 - n))) for n in range(10)),
    ]


@pytest.mark.parametrize("dedupe_by", ["message_id", "content"])
@pytest.mark.gen_test(timeout=60)
async def test_what_four_servers_get_at_once_is_created_once(
    dedupe_by: str, postgres_url: str
) -> None:
    chance = random.Random(dedupe_by)
    given = deliveries(chance)
    async with opened(*[postgres_url] * SERVERS, dedupe_by=dedupe_by, max_batch=50) as stores:

        async def deliver(store: PostgresStore) -> dict[int, Result]:
            order = chance.sample(range(len(given)), len(given))
            # A few at a time: batches end at other places on each server.
            futures = {}
            for n in order:
                futures[n] = store.insert(given[n])
                if chance.random() < 0.05:
                    store.refuse(Refusal("native", "validation_error", "r", None, "[]", b"{}"))
                    await asyncio.sleep(0)
            return {n: await future for n, future in futures.items()}

        found = await asyncio.gather(*map(deliver, stores))
        assert {result for each in found for result in each.values()} <= {
            Result.CREATED,
            Result.DUPLICATE,
        }
        created = Counter(n for each in found for n, result in each.items() if result == "created")
        assert all(created[n] <= 1 for n in range(MESSAGES))
        assert await stores[0].total() == MESSAGES + 10
    assert query(postgres_url, COUNTS_THAT_DIFFER) == []
    assert query(postgres_url, "SELECT count(*) FROM events")[0][0] == 10
    # None of them met a deadlock, not even one that was made good.
    sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert query(postgres_url, sql)[0][0] == 0


class Proxy:
    """Between a server and its database: it can cut a connection where nobody knows what was."""

    def __init__(self, url: str) -> None:
        self._address, self._database = url.rpartition("@")[2].split("/")
        self.cut: str | None = None  # at the next "request" or "answer", which is not handed on
        self.cuts = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        # In the clear, whatever another test has the server offer: the proxy reads along.
        self.url = f"postgresql://postgres@127.0.0.1:{port}/{self._database}?sslmode=disable"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        host, port = self._address.split(":")
        above, below = await asyncio.open_connection(host, int(port))
        pipes = [
            asyncio.ensure_future(self._pipe("request", reader, below)),
            asyncio.ensure_future(self._pipe("answer", above, writer)),
        ]
        try:
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pipe in pipes:
                pipe.cancel()
            for each in (writer, below):
                each.transport.abort()

    async def _pipe(
        self, what: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        before = b""  # what is looked for may come in two pieces
        while data := await reader.read(1 << 16):
            if self.cut == what and self._is_of_a_commit(before + data):
                self.cut = None
                self.cuts += 1
                return
            before = data[-8:]
            writer.write(data)

    @staticmethod
    def _is_of_a_commit(data: bytes) -> bool:
        """Only commits have ids of messages: the upkeep beside them is left alone."""
        return b"cut-" in data


@pytest.mark.gen_test(timeout=60)
async def test_a_cut_in_the_middle_of_a_commit_doubles_and_loses_nothing(
    postgres_url: str, error_log: Any
) -> None:
    error_log.expected = True
    chance = random.Random(1)
    created: Counter[str] = Counter()
    doubtful: set[str] = set()

    async def deliver(store: PostgresStore, ids: Sequence[str]) -> None:
        """Send each until it is acknowledged."""
        for each in ids:
            while True:
                try:
                    result = await store.insert(Delivery("native", (message(each),)))
                except StoreError:
                    doubtful.add(each)
                    await asyncio.sleep(0.01)
                    continue
                created[each] += result == Result.CREATED
                break

    async with Proxy(postgres_url) as proxy, opened(proxy.url, proxy.url) as stores:
        for n in range(24):
            ids = [f"cut-{n}-{k}" for k in range(6)]
            proxy.cut = ("request", "answer", None)[n % 3]
            await asyncio.gather(
                *(deliver(store, chance.sample(ids, len(ids))) for store in stores for _ in "ab")
            )
        assert proxy.cuts == 16
        assert await stores[0].total() == 24 * 6
    assert query(postgres_url, COUNTS_THAT_DIFFER) == []
    # Created is said once; or never, where nobody could know it.
    assert all(n == 1 for each, n in created.items() if each not in doubtful)
    assert all(n <= 1 for n in created.values())
    assert len(doubtful) >= 16
    assert sum(created.values()) < 24 * 6
