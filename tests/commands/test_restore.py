"""lyftr-server restore, and the copies that backup keeps."""

import os
from pathlib import Path

import pytest

from ..process import RunningServer, message
from .running import Ended, contents, run, url


def restore(database: Path, *arguments: str) -> Ended:
    return run(database.parent, "restore", *arguments, DATABASE_URL=url(database))


def backup(database: Path, *arguments: str) -> Ended:
    return run(database.parent, "backup", *arguments, DATABASE_URL=url(database))


def test_a_backup_is_restored_and_what_was_there_is_kept(
    server: RunningServer, tmp_path: Path, server_factory
) -> None:  # type: ignore[no-untyped-def]
    copy = tmp_path / "copy.db"
    server.deliver(message("first"))
    assert backup(server.database, str(copy)).status == 0
    server.deliver(message("second"))
    server.kill()  # its WAL stays, with the second in it
    assert server.database.with_name("app.db-wal").stat().st_size
    ended = restore(server.database, str(copy))
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"{server.database}: 1 messages of {copy}\n")
    (kept,) = (each for each in server.folder.glob("app.db.before-*Z"))
    assert str(kept) in ended.stdout
    assert run(tmp_path, "verify", str(kept)).stdout.startswith(f"{kept}: 2 messages")
    again = server_factory(server.folder)
    assert again.get("/messages").json()["total"] == 1


def test_it_refuses_while_a_server_runs(server: RunningServer, tmp_path: Path) -> None:
    server.deliver(message())
    copy = tmp_path / "copy.db"
    assert backup(server.database, str(copy)).status == 0
    ended = restore(server.database, str(copy))
    assert (ended.status, ended.stdout) == (1, "")
    assert "another server is using this database" in ended.stderr
    assert not list(server.folder.glob("app.db.before-*"))


def test_it_goes_where_the_file_with_the_address_says(database: Path, tmp_path: Path) -> None:
    copy, address, place = (tmp_path / name for name in ("copy.db", "address", "place.db"))
    assert backup(database, str(copy)).status == 0
    address.write_text(url(place))
    ended = run(tmp_path, "restore", str(copy), DATABASE_URL_FILE=str(address))
    assert (ended.status, ended.stderr) == (0, "")
    assert place.is_file()
    assert not (tmp_path / "data").exists()


def test_a_servers_database_is_not_restored_from_a_file(database: Path, tmp_path: Path) -> None:
    ended = run(tmp_path, "restore", str(database), DATABASE_URL="postgresql://h/d")
    assert (ended.status, ended.stdout) == (2, "")
    assert "this command reads an SQLite file" in ended.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("there", [True, False], ids=["a database", "its folder"])
def test_what_root_restores_belongs_to_the_service(
    database: Path, tmp_path: Path, there: bool
) -> None:
    copy = tmp_path / "copy.db"
    assert backup(database, str(copy)).status == 0
    for each in (database.parent, database):
        os.chown(each, 4321, 4322)
    database.chmod(0o640)
    if not there:
        database.unlink()
    assert restore(database, str(copy)).status == 0
    for name in ("app.db", "app.db-lock"):
        found = database.with_name(name).stat()
        assert (found.st_uid, found.st_gid) == (4321, 4322)
        assert found.st_mode & 0o777 == (0o640 if there else 0o600)


@pytest.mark.parametrize("broken", [b"", b"no database" * 100])
def test_what_is_no_backup_changes_nothing(database: Path, tmp_path: Path, broken: bytes) -> None:
    file = tmp_path / "broken.db"
    file.write_bytes(broken)
    before = contents(database.parent)
    ended = restore(database, str(file))
    assert ended.status in (1, 2)
    assert "Traceback" not in ended.stderr
    after = contents(database.parent)
    after.pop("app.db-lock", None)
    before.pop("app.db-lock", None)
    assert after == before


def test_the_newest_copies_stay_and_nothing_else_is_touched(database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    for name in ("lyftr-20200101T000000Z.db", "lyftr-20210101T000000Z.db", "mine.db"):
        (folder / name).write_bytes(b"old")
    ended = backup(database, "--keep", "2", str(folder))
    assert (ended.status, ended.stderr) == (0, "")
    first, second = ended.stdout.splitlines()
    assert ": 158 messages, " in first
    assert second == f"{folder}/lyftr-20200101T000000Z.db: removed"
    assert len(list(folder.iterdir())) == 3
    assert (folder / "mine.db").exists()
