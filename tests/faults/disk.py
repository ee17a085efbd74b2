"""A disk that fails, stalls, or loses power when told to: see io_faults.c."""

import mmap
import os
import random
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SECTOR = 512
SUFFIXES = ("", "-wal", "-journal")
FOLDER = 3

_CONTROL = struct.Struct("=7i")
_FIELDS = ("write_errno", "sync_errno", "read_errno", "stall", "stalled", "syncs", "refused")
_ENTRY = struct.Struct("=BBHIQ")


def build(folder: Path) -> Path:
    """Compile the library, or skip the test where nothing compiles."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is here (Debian: gcc)")
    library = folder / "io_faults.so"
    source = Path(__file__).with_name("io_faults.c")
    built = subprocess.run(
        [compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", library, source, "-ldl"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "fatal error" in built.stderr:
        pytest.skip("the C compiler has no headers (Debian: libc6-dev)")
    assert built.returncode == 0, built.stderr
    return library


class Disk:
    """Steers the faults of one server's database. `variables` go into that server's environment."""

    def __init__(self, library: Path, folder: Path, database: Path, *, recorded: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        control = folder / "control"
        control.write_bytes(bytes(_CONTROL.size))
        with control.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), _CONTROL.size)
        self.record = folder / "record"
        self.variables = {
            "LD_PRELOAD": str(library),
            "FAULTS_DATABASE": str(database.resolve()),
            "FAULTS_CONTROL": str(control),
        }
        if recorded:
            self.record.touch()
            self.variables["FAULTS_RECORD"] = str(self.record)

    def fail(self, *, writes: int = 0, syncs: int = 0, reads: int = 0) -> None:
        """From now on these calls fail with these error numbers; 0: they succeed."""
        for name, number in (("write", writes), ("sync", syncs), ("read", reads)):
            self._set(f"{name}_errno", number)

    def heal(self) -> None:
        """Work as a disk should; stalled calls go on."""
        self.fail()
        self._set("stall", 0)

    def stall(self) -> None:
        """Let no sync return."""
        self._set("stall", 1)

    def wait_until_stalled(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not self.get("stalled"):
            assert time.monotonic() < deadline, "no sync came"
            time.sleep(0.005)

    def get(self, name: str) -> int:
        values: tuple[int, ...] = _CONTROL.unpack(self._control[:])
        return values[_FIELDS.index(name)]

    def _set(self, name: str, value: int) -> None:
        place = 4 * _FIELDS.index(name)
        self._control[place : place + 4] = struct.pack("=i", value)

    def position(self) -> int:
        """Return how long the record is: all that came before it is the past."""
        return os.stat(self.record).st_size


@dataclass
class Inode:
    """A file's bytes on the platter, and what was written since the last sync."""

    synced: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # None: truncated there

    def sync(self) -> None:
        for offset, data in self.pending:
            apply(self.synced, offset, data)
        self.pending.clear()

    def after_power_loss(self, chance: random.Random, survival: float) -> bytes:
        """Each unsynced sector reached the platter or not, as the disk liked."""
        content = bytearray(self.synced)
        for offset, data in self.pending:
            if data is None:
                if chance.random() < survival:
                    apply(content, offset, None)
                continue
            for start in range(0, len(data), SECTOR):
                if chance.random() < survival:
                    apply(content, offset + start, data[start : start + SECTOR])
        return bytes(content)


def apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


@dataclass(frozen=True)
class Loss:
    """What a power cut left: files by suffix, and where in the record it came."""

    position: int
    files: dict[str, bytes]
    checkpointing: bool

    def write_to(self, database: Path) -> None:
        database.parent.mkdir(parents=True)
        for suffix, content in self.files.items():
            database.with_name(database.name + suffix).write_bytes(content)


def power_losses(
    record: Path, choose: Callable[[Sequence[tuple[int, bool]]], set[int]], seed: int
) -> Iterator[Loss]:
    """Yield what is left after a power cut at each chosen entry of the record.

    `choose` sees (position, whether a checkpoint wrote it) of all entries, and returns indexes.
    """
    entries = list(_entries(record.read_bytes()))
    chosen = choose([(end, kind == "W" and name == "") for end, kind, name, *_ in entries])
    chance = random.Random(seed)
    cached: dict[str, Inode] = {}
    durable: dict[str, Inode] = {}
    renamed: list[tuple[str, Inode | None]] = []
    checkpointing = False
    for index, (end, kind, name, offset, data) in enumerate(entries):
        if kind == "C":
            cached[name] = Inode()
            renamed.append((name, cached[name]))
        elif kind == "U":
            cached.pop(name, None)
            renamed.append((name, None))
        elif kind == "S" and name == "folder":
            _rename(durable, renamed)
            renamed.clear()
        elif name in cached and kind == "S":
            cached[name].sync()
            checkpointing = checkpointing and name != ""
        elif name in cached:
            cached[name].pending.append((offset, data))
            checkpointing = checkpointing or name == ""
        if index in chosen:
            names = dict(durable)
            # A journalling file system keeps the order of its names.
            _rename(names, renamed[: chance.randint(0, len(renamed))])
            survival = chance.choice([0.0, 0.5, 0.9, 1.0])
            files = {
                suffix: inode.after_power_loss(chance, survival) for suffix, inode in names.items()
            }
            yield Loss(end, files, checkpointing)


def _rename(names: dict[str, Inode], changes: list[tuple[str, Inode | None]]) -> None:
    for name, inode in changes:
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


def _entries(raw: bytes) -> Iterator[tuple[int, str, str, int, bytes | None]]:
    place = 0
    while place + _ENTRY.size <= len(raw):
        kind, file, _, length, offset = _ENTRY.unpack_from(raw, place)
        place += _ENTRY.size
        data = raw[place : place + length] if chr(kind) == "W" else None
        place += length
        name = "folder" if file == FOLDER else SUFFIXES[file]
        yield place, chr(kind), name, offset, data
