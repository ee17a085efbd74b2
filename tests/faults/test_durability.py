"""A 200 means: it is on the disk. Held against system calls, power cuts and kill -9."""

import asyncio
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from lyftr_server.store.sqlite.store import SqliteStore

from ..conftest import ServerFactory
from ..process import RunningServer
from ..sources.senders import SENDERS, VARIABLES
from .clients import Lost, Senders, check_answers, check_database, messages
from .conftest import LAUNCHER, FaultyServerFactory, torture
from .disk import power_losses

WEAK = ("--synchronous", "NORMAL")

# -- the order of system calls


class Trace:
    """strace on a running server, from when it is entered until it is left."""

    CALLS = "pwrite64,fdatasync,fsync,write,writev,sendto,sendmsg"

    def __init__(self, server: RunningServer, output: Path) -> None:
        if shutil.which("strace") is None:
            pytest.skip("strace is not here (Debian: strace)")
        self.output = output
        command = ["strace", "-f", "-y", "-s", "9000", "-e", f"trace={self.CALLS}"]
        self._process = subprocess.Popen(
            [*command, "-o", output, "-p", str(server.process.pid)], stderr=subprocess.PIPE
        )
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        if b"attached" not in said:
            self._process.wait(10)
            pytest.skip(f"strace may not look: {said.decode()}")

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=20)

    def calls(self) -> Iterator[tuple[bool, str, str, str]]:
        """Yield (whether it begins or ends, call, file, its bytes) in the order of the trace."""
        begun: dict[str, tuple[str, str, str]] = {}
        with self.output.open() as lines:
            for line in lines:
                thread, _, rest = line.partition(" ")
                rest = rest.strip()
                if rest.startswith("<... "):
                    if thread in begun:
                        yield (False, *begun.pop(thread))
                elif form := re.match(r"(\w+)\(\d+<([^>]*)>(.*)", rest, re.DOTALL):
                    yield (True, form[1], form[2], form[3])
                    if "<unfinished ...>" in rest:
                        begun[thread] = (form[1], form[2], form[3])
                    else:
                        yield (False, form[1], form[2], form[3])


def unsynced_answers(trace: Trace) -> tuple[list[str], list[str]]:
    """Return the ids of all messages answered 200, and of those answered before their sync.

    The id of a request is that of its message, so that an answer says what it acknowledges; a row
    stands in the WAL as it is, with its id in clear.
    """
    written: set[str] = set()
    syncing: dict[str, set[str]] = {}
    synced: set[str] = set()
    answered: list[str] = []
    early: list[str] = []
    for begins, call, file, data in trace.calls():
        if file.endswith("app.db-wal"):
            if call == "pwrite64" and not begins:
                written.update(re.findall(r"traced-[0-9]+-", data))
            elif call in ("fdatasync", "fsync") and begins:
                syncing[file] = set(written)
            elif call in ("fdatasync", "fsync"):
                synced |= syncing.pop(file)
        elif begins and "HTTP/1.1 200" in data:
            for name in re.findall(r"X-Request-ID: (traced-[0-9]+-)", data):
                answered.append(name)
                if name not in synced:
                    early.append(name)
    return answered, early


def deliver_traced(server: RunningServer, output: Path) -> tuple[list[str], list[str]]:
    # The dash at the end tells traced-1- from traced-10-.
    contents = (c | {"message_id": c["message_id"] + "-"} for c in messages("traced"))
    with Trace(server, output) as trace, Senders(server, contents, kinds=SENDERS) as senders:
        senders.wait_for(150)
    answered, early = unsynced_answers(trace)
    assert senders.acknowledged.keys() <= set(answered)
    return answered, early


def test_no_200_leaves_before_the_sync_of_its_row(
    server_factory: ServerFactory, tmp_path: Path
) -> None:
    server = server_factory(**VARIABLES)
    answered, early = deliver_traced(server, tmp_path / "trace")
    assert len(set(answered)) >= 150
    assert early == []


@pytest.mark.parametrize("mode", ["NORMAL", "OFF"])
def test_a_weaker_synchronous_is_noticed(
    mode: str, server_factory: ServerFactory, tmp_path: Path
) -> None:
    server = server_factory(command=(LAUNCHER, "--synchronous", mode), **VARIABLES)
    answered, early = deliver_traced(server, tmp_path / "trace")
    # NORMAL syncs the WAL before a checkpoint, and what is acknowledged after that is covered.
    assert len(early) > len(answered) / 2


# -- power cuts


def anywhere(count: int, seed: int) -> Callable[[Sequence[tuple[int, bool]]], set[int]]:
    """Choose places for power cuts: half anywhere, half where a checkpoint writes."""

    def choose(entries: Sequence[tuple[int, bool]]) -> set[int]:
        chance = random.Random(seed)
        critical = [index for index, (_, checkpoint) in enumerate(entries) if checkpoint]
        later = critical[len(critical) // 20 :]
        chosen = set(chance.sample(range(len(entries)), count - count // 2))
        return chosen | set(chance.sample(later, min(len(later), count // 2)))

    return choose


def lost_to_power_cuts(
    server: RunningServer, record: Path, senders: Senders, folder: Path, cuts: int
) -> int:
    """Cut the power at many moments of the past; return how many cuts lost a message.

    After each the store opens what is left, as a restarted server would.
    """
    lossy = checkpoints = 0
    for loss in power_losses(record, anywhere(cuts, seed=cuts), seed=cuts):
        acknowledged = {name for position, name in senders.marks if position <= loss.position}
        copy = folder / str(loss.position) / server.database.name
        loss.write_to(copy)
        checkpoints += loss.checkpointing
        asyncio.run(open_and_close(copy))
        try:
            check_database(copy, acknowledged, senders.attempted)
        except Lost:
            lossy += 1
        shutil.rmtree(copy.parent)
    assert checkpoints, "no power cut came in a checkpoint"
    return lossy


async def open_and_close(database: Path) -> None:
    store = SqliteStore(database)
    await store.open()
    await store.close()


def load_recorded(
    faulty: FaultyServerFactory, count: int, command: Sequence[str] | None = None
) -> tuple[RunningServer, Path, Senders]:
    options = {"command": command} if command else {}
    server, disk = faulty(recorded=True, errors_expected=False, **options)
    with Senders(
        server, messages("cut"), connections=16, mark=disk.position, kinds=SENDERS
    ) as senders:
        senders.wait_for(count, seconds=120)
    server.kill()
    assert senders.sources == {kind.source for kind in SENDERS}
    return server, disk.record, senders


@pytest.mark.slow
def test_a_power_cut_loses_nothing_acknowledged(
    faulty: FaultyServerFactory, tmp_path: Path
) -> None:
    server, record, senders = load_recorded(faulty, 1200)
    assert lost_to_power_cuts(server, record, senders, tmp_path / "cuts", 24) == 0


def test_a_power_cut_with_a_weaker_synchronous_is_noticed(
    faulty: FaultyServerFactory, tmp_path: Path
) -> None:
    server, record, senders = load_recorded(faulty, 700, (LAUNCHER, *WEAK))
    assert lost_to_power_cuts(server, record, senders, tmp_path / "cuts", 16) > 0


@torture
@pytest.mark.parametrize("run", range(3), ids="run {}".format)
def test_hundreds_of_power_cuts_lose_nothing_acknowledged(
    run: int, faulty: FaultyServerFactory, tmp_path: Path
) -> None:
    server, record, senders = load_recorded(faulty, 4000 + 1000 * run)
    assert lost_to_power_cuts(server, record, senders, tmp_path / "cuts", 200 + run) == 0


# -- kill -9


def kill_at_random_moments(
    start: ServerFactory, folder: Path, database: dict[str, str], rounds: int
) -> None:
    chance = random.Random(rounds)
    database = database | VARIABLES
    server = start(folder, **database)
    senders = Senders(server, messages("killed"), kinds=SENDERS)
    for _ in range(rounds):
        with senders:
            time.sleep(chance.uniform(0.05, 0.5))
            server.kill()
        server = start(folder, **database)
        senders.port = server.port
        rows = check_database(server.place, senders.acknowledged, senders.attempted)
        check_answers(server, rows)
    with senders:
        senders.wait_for(len(senders.acknowledged) + 20)
    server.stop()
    check_database(server.place, senders.acknowledged, senders.attempted)
    assert senders.answers.keys() == {200}
    assert senders.sources == {kind.source for kind in SENDERS}
    assert senders.broken >= rounds


@pytest.mark.slow
def test_kill_9_loses_nothing_acknowledged(
    database: dict[str, str], server_factory: ServerFactory, tmp_path: Path
) -> None:
    kill_at_random_moments(server_factory, tmp_path / "killed", database, rounds=4)


@torture
def test_kill_9_many_times_loses_nothing_acknowledged(
    database: dict[str, str], server_factory: ServerFactory, tmp_path: Path
) -> None:
    kill_at_random_moments(server_factory, tmp_path / "killed", database, rounds=40)
