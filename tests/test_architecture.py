"""The walls of the house, and what we rest on in other people's."""

import ast
import asyncio
import inspect
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import aiosqlite
import pytest
from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPServerRequest, RequestStartLine

from lyftr_server.sources import SOURCES
from lyftr_server.store.sqlite.connection import open_writer

from .process import ROOT

PACKAGE = ROOT / "lyftr_server"

# What each part may import of ours. Below base, only plain data types of one another.
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "config": {"signature"},
    "records": set(),
    "signature": set(),
    "schema": {"records"},
    "sources": {"config", "records", "schema", "signature"},
    "log": set(),
    "floods": set(),
    "peers": set(),
    "metrics": {"__init__", "signature"},
    "http1": set(),
    "systemd": set(),
    "store": {"config", "records", "schema", "metrics", "signature"},
    "feed": {"records", "schema", "store"},
    "openapi": {"__init__", "records", "schema", "signature", "sources"},
}
LAYERS = ["base", "handlers", "app", "server", "commands", "__main__"]
for number, layer in enumerate(LAYERS):
    ALLOWED[layer] = {*ALLOWED, *LAYERS[:number]}

HOMES = {
    "aiosqlite": {"store"},
    "sqlite3": {"store"},
    "asyncpg": {"store"},
    "voluptuous": {"schema", "config"},
    "voluptuous_openapi": {"openapi"},
    "prometheus_client": {"metrics"},
    "hmac": {"signature"},
    "httptools": {"http1"},
    "uvloop": {"server"},
    "dotenv": {"config"},
    "tornado": {"base", "app", "http1", "server", "metrics"},
    "offapi": set(),  # its files are found, it is never imported
}


class Import(NamedTuple):
    part: str
    module: str
    file: str


def parts() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path


@cache
def imports() -> tuple[Import, ...]:
    return tuple(running_imports())


def running_imports() -> Iterator[Import]:
    """Yield every import that runs, those inside functions included; `.x` for x of ours."""
    for part, path in parts():
        package = ["lyftr_server", *path.relative_to(PACKAGE).parts[:-1]]
        for node in running_nodes(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level:
                base = ".".join(package[: len(package) - node.level + 1])
                names = [f"{base}.{node.module}"] if node.module else []
                names += [f"{base}.{alias.name}" for alias in node.names if not node.module]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            yield from (Import(part, name, str(path.relative_to(ROOT))) for name in names)


def running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a module, but not what stands under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from running_nodes(node)


def own_part(module: str) -> str | None:
    """Return which part of the package a module belongs to, None when it is not ours."""
    package, _, rest = module.partition(".")
    if package != "lyftr_server":
        return None
    part = rest.partition(".")[0]
    known = (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file()
    return part if part and known else "__init__"


def test_every_part_has_its_place() -> None:
    assert {part for part, _ in parts()} == set(ALLOWED), "a new part belongs in ALLOWED"


def test_imports_point_one_way() -> None:
    bad = [
        each
        for each in imports()
        if (part := own_part(each.module)) is not None
        and part != each.part
        and part not in ALLOWED[each.part]
    ]
    assert bad == [], (
        "imports point from __main__ down to plain data: what two layers need belongs in the lower"
        " one, data in records.py; a new arrow needs a word in ALLOWED and a reason"
    )


# -- the walls: an engine is one folder, a sender one file

ENGINES = {path.parent.name for path in (PACKAGE / "store").glob("*/store.py")}
# What works on a database's own files while no server need be running.
OFFLINE = "commands"


def imported_engine(module: str) -> str | None:
    """Return which engine a module is part of, if any."""
    names = module.split(".")
    return names[2] if names[:2] == ["lyftr_server", "store"] and {*names[2:3]} & ENGINES else None


def test_an_engine_is_known_to_nobody_but_the_one_that_opens_it() -> None:
    assert sorted(ENGINES) == ["postgres", "sqlite"]
    bad = [
        each
        for each in imports()
        if (engine := imported_engine(each.module))
        and each.part != OFFLINE
        and each.file != "lyftr_server/store/__init__.py"
        and not each.file.startswith(f"lyftr_server/store/{engine}/")
    ]
    assert bad == [], (
        "what every engine promises belongs in store/message_store.py, what several of them need"
        " beside store/commits.py; only store_of() chooses an engine"
    )


def test_what_one_engine_has_is_named_by_it_alone() -> None:
    files = [PACKAGE / f"{name}.py" for name in ("app", "base", "feed", "log", "metrics", "server")]
    files += [*(PACKAGE / "handlers").glob("*.py"), *(PACKAGE / "store").glob("[a-z]*.py")]
    bad = [
        (path.name, engine)
        for path in files
        for engine in ENGINES
        if engine in path.read_text().lower()
    ]
    assert bad == [], (
        "an engine's gauges, labels and words belong in its own gauges(), build and name"
    )


@pytest.mark.parametrize(
    "library, engine", [("sqlite3", "sqlite"), ("aiosqlite", "sqlite"), ("asyncpg", "postgres")]
)
def test_a_database_library_stays_in_its_engine(library: str, engine: str) -> None:
    bad = [
        each.file
        for each in imports()
        if each.module.partition(".")[0] == library
        and not each.file.startswith(f"lyftr_server/store/{engine}/")
    ]
    assert bad == [], f"what talks to {library} belongs in store/{engine}/"


def test_the_engine_of_the_tests_is_small() -> None:
    """It proves that little is needed behind the wall; what every engine does is before it."""
    lines = (ROOT / "tests/store/memory.py").read_text().splitlines()
    assert len(lines) <= 150, "what is not storing or finding belongs in MessageStore or commits.py"


def test_a_sender_is_known_by_its_row_alone() -> None:
    files = [PACKAGE / f"{name}.py" for name in ("app", "base", "feed", "log", "metrics", "server")]
    files += [*(PACKAGE / "handlers").glob("*.py"), *(PACKAGE / "store").rglob("*.py")]
    bad = [
        (path.name, source.name)
        for path in files
        for source in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value == source.name
    ]
    assert bad == [], "what only one sender does belongs in its file in sources/"


def test_no_files_of_http1_import_one_another_in_a_circle() -> None:
    """Types count too: what needs each other's type is one thing, or has a third beneath it."""
    folder = PACKAGE / "http1"
    imported: dict[str, set[str]] = {}
    for path in folder.glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.level]
        imported[path.stem] = {name for name in names if name is not None}
    while leaves := {name for name, others in imported.items() if not others}:
        imported = {
            name: others - leaves for name, others in imported.items() if name not in leaves
        }
    assert imported == {}, (
        "these are a circle, or rest on one: what both need belongs in a third file beneath them"
    )


# -- size, and names

MOST_LINES = 300


def test_a_file_has_one_reason_to_change() -> None:
    sizes = {
        str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for _, path in parts()
    }
    large = {name for name, lines in sizes.items() if lines > MOST_LINES}
    assert not large, (
        f"a file of more than {MOST_LINES} lines holds two things: the one that the other does not"
        " need to know belongs in a file of its own beside it"
    )


def test_a_name_means_one_thing() -> None:
    """Two engines may each have what the other has; nothing else shares a name."""
    homes: dict[str, list[str]] = {}
    for _, path in parts():
        file = str(path.relative_to(PACKAGE))
        for engine in ENGINES:
            file = file.replace(f"store/{engine}/", "store/ENGINE/")
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name.lstrip("_"), []).append(file)
    bad = {name: files for name, files in homes.items() if len(set(files)) > 1}
    assert bad == {}, (
        "two classes of one name: what is the same thing belongs in the lower of the two layers,"
        " what is another wants a name that says so"
    )


@pytest.mark.parametrize("library", HOMES)
def test_each_library_has_one_home(library: str) -> None:
    found = [each for each in imports() if each.module.partition(".")[0] == library]
    homes = HOMES[library]
    belongs = f"what needs {library} belongs in {' or '.join(sorted(homes)) or 'no module'}"
    assert [each for each in found if each.part not in homes] == [], belongs
    assert {each.part for each in found} == homes, f"{library} is used no more: strike it out"


def test_the_environment_is_read_in_one_place() -> None:
    readers = {
        part
        for part, path in parts()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv")
    }
    assert readers == {"config"}, "a variable belongs in config/, which checks and describes it"


def test_nothing_is_asserted_outside_of_tests() -> None:
    asserting = [
        str(path)
        for _, path in parts()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
    ]
    assert asserting == [], "what may fail raises an error of ours; what cannot needs no check"


def test_the_start_script_is_short() -> None:
    lines = (ROOT / "run.py").read_text().splitlines()
    assert len(lines) < 20, "what starts the server belongs in commands/"


# -- aiosqlite: store/sqlite/connection.py hands whole functions to _execute


def test_aiosqlite_still_runs_a_function_with_its_arguments() -> None:
    parameters = inspect.signature(aiosqlite.Connection._execute).parameters.values()
    assert [(each.name, each.kind) for each in parameters] == [
        ("self", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        ("fn", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        ("args", inspect.Parameter.VAR_POSITIONAL),
        ("kwargs", inspect.Parameter.VAR_KEYWORD),
    ]
    assert inspect.iscoroutinefunction(aiosqlite.Connection._execute)
    assert isinstance(aiosqlite.Connection._conn, property)


def test_a_function_runs_in_the_connections_thread_and_its_error_comes_back(
    tmp_path: Path,
) -> None:
    (tmp_path / "x.db").touch()

    def add(db: Any, left: int, *, right: int) -> tuple[int, int]:
        (value,) = db.execute("SELECT ? + ?", (left, right)).fetchone()
        return value, threading.get_ident()

    def fail(db: Any) -> None:
        raise KeyError("x")

    async def go() -> None:
        connection = await open_writer(tmp_path / "x.db")
        try:
            value, thread = await connection.run(add, 1, right=2)
            assert value == 3
            assert thread != threading.get_ident()
            with pytest.raises(KeyError):
                await connection.run(fail)
        finally:
            await connection.close()

    asyncio.run(go())


# -- Tornado: http1 makes its requests


def test_tornado_makes_a_request_of_its_parts() -> None:
    """As http1 makes it."""
    made = HTTPServerRequest(
        start_line=RequestStartLine("GET", "/a%20b?x=1&x=%FF", "HTTP/1.1"),
        headers=HTTPHeaders({"Host": "h", "X-Y": "z"}),
        body=b"b",
        connection=HTTPConnection(),
    )
    assert (made.method, made.path, made.query, made.version) == (
        "GET",
        "/a%20b",
        "x=1&x=%FF",
        "HTTP/1.1",
    )
    assert (made.body, made.headers["x-y"], made.query_arguments) == (
        b"b",
        "z",
        {"x": [b"1", b"\xff"]},
    )


def test_the_map_shows_the_house_as_it_is() -> None:
    # Imported here: the map is drawn by what this file knows of the imports.
    from .house_map import PAGE, drawn

    page = PAGE.read_text()
    assert drawn(page) == page, "the map in CONTRIBUTING.md is out of date: draw it with `make map`"
