"""A read connection in turns: short reads pass long ones, none starves, and who leaves is free."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lyftr_server.store.sqlite import reader as sqlite_reader
from lyftr_server.store.sqlite.connection import open_reader
from lyftr_server.store.sqlite.reader import Reader


@pytest.fixture(autouse=True)
def a_piece_is_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_reader, "TURN_SECONDS", 0)


@asynccontextmanager
async def reading(folder: Path) -> AsyncIterator[Reader]:
    path = folder / "x.db"
    path.touch()
    connection = await open_reader(path)
    try:
        yield Reader(connection)
    finally:
        await connection.close()


class Story:
    """What happened on a connection, in order; its first piece waits until it is let go."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.let_go = threading.Event()
        self.begun = threading.Event()

    def pieces(self, _: sqlite3.Connection, name: str, n: int) -> Generator[None, None, str]:
        self.begun.set()
        self.let_go.wait(10)
        try:
            for number in range(n):
                self.told.append(f"{name}{number}")
                yield
        finally:
            self.told.append(f"{name} over")
        return name

    def short(self, _: sqlite3.Connection, name: str) -> None:
        self.told.append(name)

    async def beginning(self) -> None:
        """Wait until the first piece has the connection, and what was asked for later waits."""
        await asyncio.to_thread(self.begun.wait, 10)
        await asyncio.sleep(0)


async def test_a_short_read_waits_for_one_piece_of_the_long_ones(tmp_path: Path) -> None:
    story = Story()
    async with reading(tmp_path) as reader:
        long = [asyncio.create_task(reader.run_in_pieces(story.pieces, x, 3)) for x in "ab"]
        await story.beginning()
        short = asyncio.create_task(reader.run(story.short, "short"))
        await asyncio.sleep(0)
        story.let_go.set()
        assert await asyncio.gather(*long, short) == ["a", "b", None]
    # b, new as well, was there before; a goes on between two that are new.
    assert story.told.index("short") <= 3
    assert [each for each in story.told if each[0] in "ab" and each[1:].isdigit()] == [
        *("a0", "b0", "a1", "b1", "a2", "b2")
    ]


async def test_quick_pieces_share_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_reader, "TURN_SECONDS", 60)
    story = Story()
    async with reading(tmp_path) as reader:
        long = asyncio.create_task(reader.run_in_pieces(story.pieces, "a", 3))
        await story.beginning()
        cheap = asyncio.create_task(reader.run_in_pieces(story.pieces, "b", 12))
        await asyncio.sleep(0)
        story.let_go.set()
        await asyncio.gather(long, cheap)
    assert story.told == ["a0", "a1", "a2", "a over", *(f"b{n}" for n in range(12)), "b over"]


async def test_a_flood_of_short_reads_starves_no_long_one(tmp_path: Path) -> None:
    story = Story()
    async with reading(tmp_path) as reader:
        long = asyncio.create_task(reader.run_in_pieces(story.pieces, "a", 3))
        await story.beginning()
        shorts = [asyncio.create_task(reader.run(story.short, f"s{n}")) for n in range(20)]
        await asyncio.sleep(0)
        story.let_go.set()
        await asyncio.gather(long, *shorts)
    assert story.told.index("a over") < story.told.index("s5")


async def test_who_leaves_waits_for_nothing_and_its_pieces_end(tmp_path: Path) -> None:
    story = Story()
    async with reading(tmp_path) as reader:
        long = asyncio.create_task(reader.run_in_pieces(story.pieces, "a", 3))
        await story.beginning()
        gone = asyncio.create_task(reader.run(story.short, "gone"))
        after = asyncio.create_task(reader.run(story.short, "after"))
        await asyncio.sleep(0)
        for leaving in (long, gone):
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
        assert story.told == []  # the piece goes on, and who left is free already
        story.let_go.set()
        await after
    assert sorted(story.told) == ["a over", "a0", "after"]


async def test_a_piece_that_fails_is_its_readers_error_alone(tmp_path: Path) -> None:
    def failing(_: sqlite3.Connection) -> Generator[None, None, str]:
        yield
        raise KeyError("x")

    async with reading(tmp_path) as reader:
        story = Story()
        story.let_go.set()
        first = asyncio.create_task(reader.run_in_pieces(failing))
        second = asyncio.create_task(reader.run_in_pieces(story.pieces, "a", 2))
        with pytest.raises(KeyError):
            await first
        assert await second == "a"


async def test_a_turn_that_comes_as_its_reader_leaves_is_passed_on(tmp_path: Path) -> None:
    async with reading(tmp_path) as reader:
        for _ in range(50):
            readers = [asyncio.create_task(reader.run(lambda db: None)) for _ in range(6)]
            await readers[0]
            for leaving in readers[1:4]:
                leaving.cancel()
            async with asyncio.timeout(30):
                await asyncio.gather(*readers, return_exceptions=True)
