"""lyftr-server verify."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lyftr_server.store.sqlite.verify import figures

from ..process import RunningServer, message
from .running import Ended, Terminal, contents, fill, many, run, slowed, url


def verify(path: Path, *arguments: str) -> Ended:
    return run(path.parent, "verify", str(path), *arguments)


def alter(path: Path, *statements: str) -> None:
    """Change a database behind the program's back; it stays one file."""
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)


def fits(path: Path, messages: int) -> str:
    """Return what verify says of a database that is as it should be."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        others = figures(db)
    return f"{path}: {messages} messages; everything fits\n{path}: {others}\n"


def test_a_database_that_fits(database: Path) -> None:
    before = contents(database.parent)
    ended = verify(database)
    assert contents(database.parent) == before
    assert ended == (0, fits(database, 158), "")


def test_the_configured_database_while_its_server_runs(server: RunningServer) -> None:
    server.deliver(message())
    ended = run(server.folder, "verify", DATABASE_URL=url(server.database))
    assert ended == (0, fits(server.database, 1), "")


WRONG_COUNT = "UPDATE day_counts SET n = n + 1 WHERE day = '2024-02-29'"
WRONG_INDEX = "INSERT INTO search (rowid, text) VALUES (1, 'a text that no message has')"


@pytest.mark.parametrize(
    "statement, word",
    [
        pytest.param(WRONG_COUNT, "day_counts", id="a count"),
        pytest.param("DELETE FROM recipient_counts", "recipient_counts", id="a table of counts"),
        pytest.param(WRONG_INDEX, "search index", id="the search index"),
    ],
)
def test_what_does_not_fit_is_named_and_repaired(database: Path, statement: str, word: str) -> None:
    alter(database, statement)
    ended = verify(database)
    assert (ended.status, ended.stderr) == (1, "")
    assert ended.lines
    assert all(line.startswith(f"{database}: ") for line in ended.lines)
    assert word in ended.stdout

    repaired = verify(database, "--repair")
    assert repaired == (0, fits(database, 158), "")
    assert verify(database).status == 0
    found = run(database.parent, "export", "--q", "leap day", DATABASE_URL=url(database))
    assert len(found.lines) == 2


def test_quick_leaves_out_the_search_index_alone(database: Path) -> None:
    alter(database, WRONG_INDEX)
    assert verify(database, "--quick").status == 0
    alter(database, WRONG_COUNT)
    assert verify(database, "--quick").status == 1


def test_a_damaged_page_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    fill(path, many(2000))
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)
    ended = verify(path)
    assert ended.status == 1
    assert "Traceback" not in ended.stderr
    assert ended.stdout + ended.stderr != ""


def test_a_server_that_runs_is_not_repaired_under(server: RunningServer) -> None:
    server.deliver(message())
    ended = verify(server.database, "--repair")
    assert (ended.status, ended.stdout) == (1, "")
    assert "another server is using this database" in ended.stderr
    assert server.deliver(message("m2")).status == 200


@pytest.mark.parametrize("arguments", [(), ("--repair",)])
def test_no_database(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = verify(tmp_path / "none.db", *arguments)
    assert (ended.status, ended.stdout) == (2, "")
    assert "there is no such database" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [(), ("--repair",)])
def test_a_file_that_is_no_database(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "notes.txt").write_text("notes " * 1000)
    ended = verify(tmp_path / "notes.txt", *arguments)
    assert (ended.status, ended.stdout) == (1, "")
    assert ended.stderr.endswith("file is not a database\n")
    assert (tmp_path / "notes.txt").read_text() == "notes " * 1000


def test_a_terminal_shows_that_it_works(database: Path) -> None:
    ended = Terminal(
        database.parent,
        *("verify", "--repair", "--quick", str(database)),
        program=slowed(0.2, "lyftr_server.store.sqlite.search", "fold"),
    ).end()
    assert (ended.status, ended.stdout) == (0, fits(database, 158))
    assert "\rfilling the search index  0:0" in ended.stderr
    assert "\rchecking  0:00" in ended.stderr


def test_it_can_be_interrupted_while_sqlite_is_busy(tmp_path: Path) -> None:
    code = """
import sqlite3
from lyftr_server.store.sqlite.offline import unhurried
db = sqlite3.connect(":memory:", check_same_thread=False)
def work(db):
    print("working", flush=True)
    db.execute("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c)"
               " SELECT count(*) FROM c")
try:
    unhurried(db, lambda: print(".", end="", flush=True), work)
except KeyboardInterrupt:
    print("interrupted")
"""
    working = Terminal(tmp_path, program=("-c", code), stdout=True)
    working.wait_for("working\r\n..")
    ended = working.end(2)
    assert ended.status == 0
    assert ended.stderr.endswith("interrupted\r\n")


def test_an_interrupted_repair_leaves_a_database_that_a_repair_mends(large: Path) -> None:
    alter(large, "DELETE FROM hour_counts")
    alter(large, "INSERT INTO search_deleted VALUES (1, 'of a row that exists')")
    repairing = Terminal(
        large.parent,
        *("verify", "--repair", str(large)),
        program=slowed(0.2, "lyftr_server.store.sqlite.search", "fold"),
    )
    repairing.wait_for("filling the search index")
    ended = repairing.end(2)
    assert (ended.status, ended.stdout) == (130, "")
    assert "Traceback" not in ended.stderr
    assert verify(large, "--quick").status == 0
