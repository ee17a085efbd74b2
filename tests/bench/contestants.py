"""The servers that are compared, and how each is made ready and started."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".bench"
SECRET = "a secret for the benchmark only"
INSTALL_SECONDS = 900


class NotHereError(Exception):
    """What a server needs is not on this machine: it is left out, with this reason."""


@dataclass(frozen=True)
class Contestant:
    """A server to measure. Bodies are made for `ceiling` a second, more than it can ever take."""

    name: str
    label: str
    prepare: Callable[[], list[str]]
    ceiling: int
    stores: bool = True
    stored_rows: int = 0
    slow_ms: int = 0
    every_connections: bool = True

    def environment(self, directory: Path, port: int) -> dict[str, str]:
        """Return all that the server is told; nothing of the caller's own settings leaks in."""
        told = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NODE_ENV": "production",
            "PORT": str(port),
            "WEBHOOK_SECRET": SECRET,
            "DATABASE_URL": f"sqlite:///{database_path(directory)}",
            "DATABASE_PATH": str(database_path(directory)),
        }
        if self.slow_ms:
            told |= {"LD_PRELOAD": str(slow_sync()), "SLOW_SYNC_US": str(self.slow_ms * 1000)}
        return told

    def slowed(self, milliseconds: int) -> Contestant:
        """Return the same server on a disk whose sync takes so much longer."""
        return replace(
            self,
            name=f"{self.name}+{milliseconds}ms",
            label=f"{self.label}, sync +{milliseconds} ms",
            slow_ms=milliseconds,
            every_connections=False,
        )


def database_path(directory: Path) -> Path:
    """Return where a server that runs in `directory` keeps its messages."""
    return directory / "app.db"


def line_up(rows: int) -> list[Contestant]:
    """Return every server, the yardstick first; one of ours starts with `rows` messages."""
    bare = Contestant(
        "bare", "bare Tornado handler, stores nothing", _bare, ceiling=16_000, stores=False
    )
    ours = Contestant("ours", "lyftr-server", _ours, ceiling=20_000)
    full = replace(
        ours,
        name="ours-full",
        label=f"lyftr-server, {rows:,} stored before",
        stored_rows=rows,
        every_connections=False,
    )
    each = Contestant(
        "commit-each", "lyftr-server, a commit for each request", _commit_each, ceiling=10_000
    )
    fastapi = Contestant("fastapi", "FastAPI, SQLAlchemy, aiosqlite", _fastapi, ceiling=5_000)
    node = Contestant("node", "Node, fastify, better-sqlite3", _node, ceiling=15_000)
    slow = [server.slowed(delay) for delay in (2, 10) for server in (ours, each, node)]
    return [bare, ours, full, each, fastapi, node, *slow]


def _bare() -> list[str]:
    return [sys.executable, "-m", "tests.bench.peers.bare"]


def _ours() -> list[str]:
    return [sys.executable, "-m", "lyftr_server", "serve"]


def _commit_each() -> list[str]:
    return [sys.executable, "-m", "tests.bench.commit_each"]


def _fastapi() -> list[str]:
    wanted = HERE / "peers" / "requirements.txt"
    venv = CACHE / f"fastapi-{sys.version_info[0]}.{sys.version_info[1]}-{_digest(wanted)}"
    python = venv / "bin" / "python"
    if not (venv / ".installed").exists():
        _run([sys.executable, "-m", "venv", "--clear", str(venv)], "python -m venv failed")
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "install", "-r", str(wanted)], "pip could not install FastAPI")
        (venv / ".installed").touch()
    return [str(python), str(HERE / "peers" / "fastapi_app.py")]


def _node() -> list[str]:
    if not shutil.which("node") or not shutil.which("npm"):
        raise NotHereError("node and npm are not installed: apt-get install nodejs npm")
    source = HERE / "peers" / "node"
    home = CACHE / f"node-{_digest(source / 'package.json')}"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "package.json", home)
    if not (home / ".installed").exists():
        npm = ["npm", "install", "--prefix", str(home), "--omit=dev", "--no-audit", "--no-fund"]
        _run(npm, "npm could not install fastify and better-sqlite3")
        (home / ".installed").touch()
    # Node looks for packages beside the script, so the script goes to the packages.
    shutil.copy(source / "server.js", home)
    return ["node", str(home / "server.js")]


def slow_sync() -> Path:
    """Compile the shim that slows every sync down, and return its path."""
    source = HERE / "slow_sync.c"
    library = CACHE / f"slow_sync-{_digest(source)}.so"
    if not library.exists():
        if not (compiler := shutil.which("gcc") or shutil.which("cc")):
            raise NotHereError("no C compiler for the slow disk: apt-get install gcc libc6-dev")
        options = ["-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
        _run([compiler, *options], "gcc could not compile slow_sync.c")
    return library


def make_cache() -> Path:
    """Create the folder for what the benchmark installs and runs in; git ignores it."""
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    return CACHE


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _run(command: list[str], fault: str) -> None:
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotHereError(f"{fault}: {error}") from error
    if run.returncode:
        said = (run.stderr or run.stdout).strip().splitlines()
        raise NotHereError(f"{fault}: {said[-1] if said else f'status {run.returncode}'}")
