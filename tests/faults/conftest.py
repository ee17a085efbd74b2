"""Fixtures: disks that fail, and how long to torture."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from ..conftest import ServerFactory
from ..process import RunningServer
from ..sources.senders import VARIABLES
from .disk import Disk, build

LAUNCHER = str(Path(__file__).with_name("launcher.py"))

T = TypeVar("T", bound=Callable[..., object])


def torture(test: T) -> T:
    """Mark a test as a long one."""
    skip = pytest.mark.skipif(
        not os.environ.get("LYFTR_TORTURE"), reason="takes minutes: make torture"
    )
    marked: T = pytest.mark.torture(pytest.mark.timeout(1800)(skip(test)))
    return marked


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> dict[str, str]:
    """The variables of a server on each engine; on SQLite its own file.

    Ask for it before the servers: they must have ended before their database goes.
    """
    if request.param == "sqlite":
        return {}
    return {"DATABASE_URL": request.getfixturevalue("postgres_url")}


FaultyServerFactory = Callable[..., tuple[RunningServer, Disk]]


@pytest.fixture(scope="session")
def io_faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("io_faults"))


@pytest.fixture
def faulty(io_faults: Path, tmp_path: Path, server_factory: ServerFactory) -> FaultyServerFactory:
    """Start a server on a disk that we steer; errors in its log are expected."""

    def start(
        folder: Path | None = None, *, recorded: bool = False, **options: object
    ) -> tuple[RunningServer, Disk]:
        folder = folder or tmp_path / "faulty"
        disk = Disk(io_faults, tmp_path / "disk", folder / "app.db", recorded=recorded)
        options = {"errors_expected": True} | VARIABLES | disk.variables | options
        server = server_factory(folder, **options)
        assert disk.get("syncs"), "the library does not see what this Python's SQLite does"
        return server, disk

    return start
