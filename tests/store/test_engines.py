"""What every engine answers over random histories, through the interface that all of them have."""

import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tornado.platform.asyncio import AsyncIOLoop

from lyftr_server.records import Message
from lyftr_server.schema import MessageQuery, TimelineQuery
from lyftr_server.store import MessageStore

from ..conftest import StoreMaker
from ..process import native
from .model import Model
from .test_reads import MESSAGE, QUERY

pytestmark = pytest.mark.every_engine


@given(
    st.lists(st.lists(MESSAGE, min_size=1, max_size=6), max_size=5),
    st.lists(QUERY, min_size=1, max_size=6),
)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_answer_is_the_models(
    io_loop: AsyncIOLoop,
    empty_store: StoreMaker,
    batches: list[list[Message]],
    queries: list[MessageQuery],
) -> None:
    async def check() -> None:
        async with empty_store() as store:
            model = Model()
            for batch in batches:
                for waiting in [store.insert(native(each)) for each in batch]:
                    await waiting
                model.insert(batch, time.time_ns() // 1000)
            assert await store.total() == len(model.rows)
            now_us = time.time_ns() // 1000
            assert await store.stats(now_us) == model.stats(now_us)
            for query in queries:
                await check_walk(store, query, model.matching(query))
                await check_stored(store, replace(query, offset=0, order="stored"), model)
                await check_timeline(store, query, model)

    io_loop.run_sync(check)


async def check_walk(store: MessageStore, query: MessageQuery, rows: list[Message]) -> None:
    """Check the page, all pages after it, all before, and the export."""
    page = await store.page(query)
    start, end = query.offset, query.offset + query.limit
    assert (page.data, page.total) == (rows[start:end], len(rows))
    before = page.previous_cursor
    assert (before is None) == (start == 0 or not rows)
    seen = list(page.data)
    while page.next_cursor:
        page = await store.page(replace(query, offset=0, cursor=page.next_cursor))
        seen += page.data
    assert seen == rows[start:]
    while before:
        page = await store.page(replace(query, offset=0, cursor=before))
        seen, before = [*page.data, *seen], page.previous_cursor
    assert seen == rows
    assert [row async for rows in store.export(query) for row in rows] == rows


async def check_stored(store: MessageStore, query: MessageQuery, model: Model) -> None:
    """Check that following meets every row once, whether by pages or as a stream does."""
    seen: list[Message] = []
    page = await store.page(query)
    while page.data:
        seen += page.data
        page = await store.page(replace(query, cursor=page.next_cursor))
    rows = model.matching(query)
    assert (seen, page.total) == (rows, len(rows))
    assert await store.follow(query, await store.head(), 10) == ([], [])
    if seen:
        assert await store.follow(query, str(page.next_cursor), 10) == ([], [])


async def check_timeline(store: MessageStore, query: MessageQuery, model: Model) -> None:
    for by in ("hour", "day"):
        since = query.since or "2025-01-15T09:30:00Z"
        asked = TimelineQuery(by, since, query.until or "2025-01-16T00:00:01Z")
        assert await store.timeline(asked) == model.timeline(asked)
