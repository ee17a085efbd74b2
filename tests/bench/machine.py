"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import tornado


def describe(directory: Path) -> dict[str, str | int | float]:
    """Return the machine's facts; the sync time is that of the disk under `directory`."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 0,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "tornado": tornado.version,
        "node": _node_version(),
        "sync_ms": round(sync_ms(directory), 3),
    }


def _node_version() -> str:
    if not shutil.which("node"):
        return "none"
    run = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=10)
    return run.stdout.strip().removeprefix("v")


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def sync_ms(directory: Path, times: int = 100) -> float:
    """Return the median time of a 4 KB write with fdatasync, in milliseconds."""
    page = os.urandom(4096)
    taken = []
    path = directory / "sync.probe"
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            file.write(page)
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - start)
    path.unlink()
    return statistics.median(taken) * 1000
