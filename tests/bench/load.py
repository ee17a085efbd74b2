"""Load by wrk: a file of signed bodies at a server, and what came of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("wrk.lua")
# wrk's own two seconds would count a slow answer as an error.
TIMEOUT_SECONDS = 30


class LoadError(Exception):
    """wrk is not there, or did not do its work."""


@dataclass(frozen=True)
class Load:
    """What wrk saw. `refused` counts answers of 400 and more, `broken` the connections' faults."""

    seconds: float
    answers: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    refused: int
    broken: int
    ran_out: bool


def require_wrk() -> str:
    """Return wrk's version line."""
    if not shutil.which("wrk"):
        raise LoadError("wrk is not installed: apt-get install wrk")
    about = subprocess.run(["wrk", "-v"], capture_output=True, text=True, timeout=10)
    return (about.stdout or about.stderr).splitlines()[0].split(" [")[0]


def run_wrk(port: int, prefix: Path, seconds: int, connections: int, threads: int) -> Load:
    """Send the bodies in PREFIX.0 to PREFIX.<threads - 1>, each once, for so many seconds."""
    command = [
        *("wrk", "--script", str(SCRIPT), "--duration", f"{seconds}s"),
        *("--connections", str(connections), "--threads", str(threads)),
        *("--timeout", f"{TIMEOUT_SECONDS}s", f"http://127.0.0.1:{port}/webhook"),
        *("--", str(prefix)),
    ]
    limit = seconds + TIMEOUT_SECONDS + 30
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"wrk did not end within {limit} s") from error
    results = [line for line in run.stdout.splitlines() if line.startswith("result ")]
    if run.returncode or not results:
        raise LoadError(f"wrk failed with status {run.returncode}: {run.stdout}{run.stderr}")
    seen = json.loads(results[0].removeprefix("result "))
    return Load(
        seconds=seen["duration_us"] / 1e6,
        answers=seen["requests"] - seen["status"],
        p50_ms=seen["p50_us"] / 1000,
        p99_ms=seen["p99_us"] / 1000,
        max_ms=seen["max_us"] / 1000,
        refused=seen["status"],
        broken=seen["connect"] + seen["read"] + seen["write"] + seen["timeout"],
        ran_out=seen["ran_out"],
    )
