"""Databases that servers left, and one made up of many messages."""

import shutil
from pathlib import Path

import pytest

from ..process import RunningServer
from .running import SAMPLE, count, fill, many, run

MANY = 20_000


@pytest.fixture(scope="session")
def left_by_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    with RunningServer(folder) as server:
        ended = run(folder, "send", str(SAMPLE), "--url", server.url, WEBHOOK_SECRET="testsecret")
        assert ended.status == 0, ended
    count(server.database)
    return server.database


@pytest.fixture(scope="session")
def made_of_many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("many") / "app.db"
    fill(path, many(MANY, "x" * 300))
    return path


@pytest.fixture
def database(left_by_server: Path, tmp_path: Path) -> Path:
    """The sample file's messages, as a server left them; alone in a folder of its own."""
    return _copied(left_by_server, tmp_path)


@pytest.fixture
def large(made_of_many: Path, tmp_path: Path) -> Path:
    """A database of MANY messages; alone in a folder of its own."""
    return _copied(made_of_many, tmp_path)


def _copied(path: Path, folder: Path) -> Path:
    (folder / "database").mkdir()
    return Path(shutil.copy(path, folder / "database" / "app.db"))
