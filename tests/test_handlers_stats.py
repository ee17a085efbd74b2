"""GET /stats: counts over all messages."""

import asyncio
import json
import time
from typing import Any

import pytest

from lyftr_server.records import Message
from lyftr_server.store import MessageStore

from .conftest import Client
from .process import RunningServer, message, native

pytestmark = pytest.mark.every_engine

DAY_US = 86_400_000_000


async def fill(store: MessageStore, *messages: dict[str, Any]) -> None:
    await asyncio.gather(*(store.insert(native(Message(*each.values()))) for each in messages))


async def stats(client: Client) -> dict[str, Any]:
    answer = await client.get("/stats")
    assert (answer.code, answer.headers["Content-Type"]) == (200, "application/json")
    content: dict[str, Any] = json.loads(answer.body)
    return content


async def test_an_empty_store_has_zeros_and_nulls(client: Client) -> None:
    assert await stats(client) == {
        "total_messages": 0,
        "senders_count": 0,
        "messages_per_sender": [],
        "first_message_ts": None,
        "last_message_ts": None,
        "recipients_count": 0,
        "messages_last_24h": 0,
        "top_sender": None,
    }


async def test_every_key_counts_what_it_says(client: Client, store: MessageStore) -> None:
    await fill(
        store,
        message("m1", from_="+1", to="+7", ts="2025-01-15T10:00:00.5Z"),
        message("m2", from_="+2", to="+7", ts="2025-01-15T10:00:00Z"),
        message("m3", from_="+2", to="+8", ts="2025-01-15T10:00:00.50Z"),
    )
    assert await stats(client) == {
        "total_messages": 3,
        "senders_count": 2,
        "messages_per_sender": [{"from": "+2", "count": 2}, {"from": "+1", "count": 1}],
        "first_message_ts": "2025-01-15T10:00:00Z",
        "last_message_ts": "2025-01-15T10:00:00.50Z",
        "recipients_count": 2,
        "messages_last_24h": 3,
        "top_sender": "+2",
    }


async def test_repeats_and_conflicts_count_once(client: Client) -> None:
    await client.deliver(message())
    await client.deliver(message())
    await client.deliver(message(from_="+2", to="+3"))
    found = await stats(client)
    assert (found["total_messages"], found["senders_count"], found["recipients_count"]) == (1, 1, 1)


async def test_the_ten_busiest_senders_by_count_then_by_number(
    client: Client, store: MessageStore
) -> None:
    # +30 has 4, +20 and +100 have 3 (text order: +100 first), twelve others 1 each.
    counts = {"+30": 4, "+20": 3, "+100": 3} | {f"+5{n:02}": 1 for n in range(12)}
    await fill(
        store,
        *(
            message(f"{sender}-{n}", from_=sender)
            for sender, count in reversed(counts.items())
            for n in range(count)
        ),
    )
    found = await stats(client)
    top = [(each["from"], each["count"]) for each in found["messages_per_sender"]]
    assert top == [("+30", 4), ("+100", 3), ("+20", 3), *((f"+5{n:02}", 1) for n in range(7))]
    assert (found["senders_count"], found["top_sender"]) == (15, "+30")
    assert found["total_messages"] == sum(counts.values())


async def test_the_order_of_ties_does_not_depend_on_storing(
    client: Client, store: MessageStore
) -> None:
    await fill(store, message("m1", from_="+9"))
    await fill(store, message("m2", from_="+1"))
    found = await stats(client)
    assert [each["from"] for each in found["messages_per_sender"]] == ["+1", "+9"]


async def test_the_last_day_goes_by_the_servers_clock(store: MessageStore, client: Client) -> None:
    before = time.time_ns() // 1000
    await fill(store, message("m1", ts="1999-01-01T00:00:00Z"), message("m2"))
    after = time.time_ns() // 1000
    assert (await stats(client))["messages_last_24h"] == 2
    assert (await store.stats(before + DAY_US))["messages_last_24h"] == 2
    assert (await store.stats(after + DAY_US + 1))["messages_last_24h"] == 0
    assert (await store.stats(after + DAY_US + 60_000_000))["messages_last_24h"] == 0


async def test_a_clock_that_is_off_takes_no_message_from_the_last_day(
    store: MessageStore, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a database that servers share its own clock tells both times."""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 2 * DAY_US * 1000)
    await fill(store, message("m1"))
    assert (await stats(client))["messages_last_24h"] == 1


def test_the_real_process_counts_over_a_restart(server_factory: Any) -> None:
    first: RunningServer = server_factory()
    first.deliver(message("m1"))
    before = first.get("/stats").json()
    first.stop()
    again: RunningServer = server_factory(first.folder)
    assert again.get("/stats").json() == before
    assert before["messages_last_24h"] == 1
