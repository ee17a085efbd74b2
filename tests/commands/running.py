"""Runs commands: to their end, on a terminal, or until they are interrupted."""

import codecs
import os
import pty
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from lyftr_server.records import Message
from lyftr_server.schema import parse_message
from lyftr_server.store.sqlite import counts, schema, search

from ..process import ROOT, environment, run_to_end

PROGRAM = ("-m", "lyftr_server")
SAMPLE = ROOT / "tests" / "data" / "messages.ndjson"
DEADLINE_SECONDS = 60.0


def slowed(
    seconds: float, owner: str = "lyftr_server.commands.progress.Progress", step: str = "update"
) -> tuple[str, str]:
    """Return the program with each step of its work slowed down, so that it can be met there."""
    code = f"""
import pkgutil, sys, time
from lyftr_server.__main__ import main
owner = pkgutil.resolve_name({owner!r})
step = getattr(owner, {step!r})
def slowly(*arguments):
    result = step(*arguments)
    time.sleep({seconds})
    return result
setattr(owner, {step!r}, slowly)
sys.exit(main())
"""
    return "-c", code


class Ended(NamedTuple):
    """What a command left behind."""

    status: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


def run(folder: Path, *command: str, stdin: bytes = b"", **variables: str) -> Ended:
    """Run a command of ours in `folder` to its end, in pipes."""
    ended = run_to_end(folder, *PROGRAM, *command, stdin=stdin, **variables)
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


class Terminal:
    """A command whose standard error is a terminal, and standard output too if `stdout`."""

    def __init__(
        self,
        folder: Path,
        *command: str,
        stdout: bool = False,
        program: Sequence[str] = PROGRAM,
        stdin: int = subprocess.DEVNULL,
        **variables: str,
    ) -> None:
        self._master, slave = pty.openpty()
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.shown = ""
        try:
            self.process = subprocess.Popen(
                [sys.executable, *program, *command],
                env=environment(**{"COLUMNS": "80"} | variables),
                cwd=folder,
                stdin=stdin,
                stdout=slave if stdout else subprocess.PIPE,
                stderr=slave,
                # A test run in the background hands down that SIGINT is ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
        finally:
            os.close(slave)

    def wait_for(self, text: str) -> None:
        """Return once the terminal shows `text`."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while text not in self.shown:
            assert self._read(deadline - time.monotonic()), self.shown

    def end(self, number: int | None = None) -> Ended:
        """Send a signal, if any, and wait for the end."""
        if number is not None:
            self.process.send_signal(number)
        while self._read(DEADLINE_SECONDS):
            pass
        try:
            output, _ = self.process.communicate(timeout=DEADLINE_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self._master)
        return Ended(self.process.returncode, (output or b"").decode(), self.shown)

    def _read(self, seconds: float) -> bool:
        readable, _, _ = select.select([self._master], [], [], max(seconds, 0))
        if not readable:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has the other end any more
            return False
        self.shown += self._decoder.decode(data)
        return bool(data)


def last_drawn(shown: str) -> str:
    """Return what a terminal shows at last on the line that a progress was drawn on."""
    cells = ""
    for piece in shown.rpartition("\n")[2].split("\r"):
        cells = piece + cells[len(piece) :]
    return cells.rstrip()


def sample() -> list[Message]:
    """Return the messages of the sample file, in its order, repeats too."""
    return [parse_message(line) for line in SAMPLE.read_bytes().splitlines()]


def fill(path: Path, messages: Iterable[Message]) -> None:
    """Make a database with these messages, as a server leaves it when it ends."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        schema.migrate(db)
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at)"
            " VALUES (?, ?, ?, ?, ?, 1750000000000000)",
            messages,
        )
        db.execute("COMMIT")
        while search.fold(db):
            pass
    count(path)


def count(path: Path) -> None:
    """Let the counts know all messages, as an idle moment does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        while counts.fold(db):
            pass


def many(count: int, text: str = "text") -> Iterable[Message]:
    for n in range(count):
        ts = f"2025-01-{n % 28 + 1:02}T{n % 24:02}:{n % 60:02}:00Z"
        yield Message(f"many-{n:06}", f"+{n % 100 + 1}", "+1", ts, f"{text} {n}")


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}
