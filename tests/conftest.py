"""Fixtures: the real process, and the application inside a test, served as in production."""

import asyncio
import inspect
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.platform.asyncio import AsyncIOLoop

from lyftr_server import http1
from lyftr_server.app import Application
from lyftr_server.config import Config
from lyftr_server.log import JsonLines, Output
from lyftr_server.signature import sign
from lyftr_server.store import MessageStore
from lyftr_server.store.postgres.store import PostgresStore
from lyftr_server.store.sqlite.store import SqliteStore

from .browsing import chromium
from .postgres import PostgresServer, find_programs
from .process import SECRET, RunningServer, as_body
from .store.memory import MemoryStore

ENGINES = ["sqlite", "memory", "postgres"]
# Those that keep what they have.
DATABASES = ["sqlite", "postgres"]

# Whatever has one of these, or stands in one of these places, starts programs of its own.
PROGRAMS = {"server_factory", "postgres", "own_postgres"}
PLACES = {"commands", "faults", "test_main.py", "test_server.py", "test_wheel.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run every coroutine test on the io_loop fixture; mark those that start programs."""
    for item in items:
        if inspect.iscoroutinefunction(getattr(item, "function", None)):
            item.add_marker(pytest.mark.gen_test)
        if isinstance(item, pytest.Function) and _starts_programs(item):
            item.add_marker(pytest.mark.program)


def _starts_programs(item: pytest.Function) -> bool:
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return (
        not PROGRAMS.isdisjoint(item.fixturenames)
        or not PLACES.isdisjoint((item.path.parent.name, item.path.name))
        or "postgres" in (each for each in parameters if isinstance(each, str))
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that are marked so, alone or as a module, on each of the ENGINES."""
    marked = metafunc.definition.get_closest_marker
    if "engine" in metafunc.fixturenames and not marked("one_engine"):
        if marked("every_engine"):
            metafunc.parametrize("engine", ENGINES, indirect=True)
        elif marked("every_database"):
            metafunc.parametrize("engine", DATABASES, indirect=True)


# -- errors that nobody expected


class ErrorLog:
    """Set `expected` to True in a test that makes the server log an ERROR."""

    expected = False


@pytest.fixture
def error_log() -> ErrorLog:
    return ErrorLog()


@pytest.fixture(autouse=True)
def no_unexpected_error(caplog: pytest.LogCaptureFixture, error_log: ErrorLog) -> Iterator[None]:
    """Fail a test during which an ERROR was logged that it did not announce."""
    yield
    records = [record for when in ("setup", "call") for record in caplog.get_records(when)]
    errors = [record.getMessage() for record in records if record.levelno >= logging.ERROR]
    assert error_log.expected or not errors, errors


# -- the real process

ServerFactory = Callable[..., RunningServer]


@pytest.fixture
def server_factory(tmp_path: Path) -> Iterator[ServerFactory]:
    """Start servers: server_factory(folder=None, command=..., secret=..., VARIABLE="value")."""
    started: list[RunningServer] = []

    def start(folder: Path | None = None, **options: Any) -> RunningServer:
        own = {name: options.pop(name) for name in list(options) if not name.isupper()}
        folder = folder or tmp_path / f"server{len(started)}"
        server = RunningServer(folder, variables=options, **own)
        started.append(server)
        return server

    try:
        yield start
    finally:
        running = [server for server in started if server.process.poll() is None]
        ended = [server for server in started if server not in running]
        try:
            for server in running:
                server.stop()
            for server in ended:
                server.check_output()
        finally:
            for server in started:
                server.kill()


@pytest.fixture
def server(server_factory: ServerFactory) -> RunningServer:
    """A fresh server with a database of its own."""
    return server_factory()


# -- a browser

browser = pytest.fixture(chromium, name="browser")


# -- the application inside the test


_abandoned: list[asyncio.AbstractEventLoop] = []


@pytest.fixture
def io_loop() -> Iterator[AsyncIOLoop]:
    """uvloop, as in production; pytest-tornado's calls the deprecated IOLoop.make_current.

    asyncio's own does not hold back who writes lines on 3.12.0 to 3.13.0 (CVE-2024-12254).
    """
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    io_loop = AsyncIOLoop(asyncio_loop=loop, make_current=False)
    yield io_loop
    asyncio.set_event_loop(None)
    if asyncio.all_tasks(loop):
        _abandoned.append(loop)  # a test failed; to close, uvloop would wait for what is left open
    else:
        io_loop.close(all_fds=True)


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Config:
    """The configuration; parametrize it indirectly with what shall differ."""
    settings = Config(
        secrets=(SECRET.encode(),),
        database=tmp_path / "app.db",
        # What tests that write requests themselves call it.
        allowed_hosts=("x", "h", "127.0.0.1"),
    )
    return replace(settings, **getattr(request, "param", {}))


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """Which database the store is on: SQLite, unless marked every_engine."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests, without syncs."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with PostgresServer(programs) as server:
        yield server


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[PostgresServer]:
    """Another one, that may be stopped and frozen; whoever does mends it."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with PostgresServer(programs) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """A migrated database of the test's own."""
    with postgres.database() as url:
        yield url


StoreFactory = Callable[..., Awaitable[SqliteStore]]


@pytest.fixture
def open_store(io_loop: AsyncIOLoop) -> Iterator[StoreFactory]:
    """Open stores that are closed at the test's end: a thread left open would never let us go."""
    stores: list[SqliteStore] = []

    async def opened(path: Path, **options: Any) -> SqliteStore:
        store = SqliteStore(path, **options)
        await store.open()
        stores.append(store)
        return store

    yield opened
    for store in stores:
        if not store._commits._closing:
            io_loop.run_sync(store.close)


@pytest.fixture
def new_store(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., MessageStore]:
    """Make a store, not open yet, on the test's one database; as often as a test likes."""
    if engine == "sqlite":
        return lambda **options: SqliteStore(tmp_path / "app.db", **options)
    url = request.getfixturevalue("postgres_url")
    return lambda **options: PostgresStore(url, **options)


StoreMaker = Callable[..., AbstractAsyncContextManager[MessageStore]]


@pytest.fixture
def empty_store(
    engine: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> StoreMaker:
    """Open an empty store of the engine for the length of a block; as often as a test likes."""

    @asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[MessageStore]:
        with ExitStack() as stack:
            if engine == "sqlite":
                path = tmp_path_factory.mktemp("store") / "app.db"
                store: MessageStore = SqliteStore(path, **options)
            elif engine == "memory":
                store = MemoryStore(**options)
            else:
                postgres = request.getfixturevalue("postgres")
                store = PostgresStore(stack.enter_context(postgres.database()), **options)
            await store.open()
            try:
                yield store
            finally:
                await store.close()

    return opened


@pytest.fixture
def store(
    io_loop: AsyncIOLoop,
    settings: Config,
    open_store: StoreFactory,
    engine: str,
    request: pytest.FixtureRequest,
) -> Iterator[MessageStore]:
    options = {"dedupe_by": settings.dedupe_by, "queue_limit": settings.queue_limit}
    if engine == "sqlite":
        yield io_loop.run_sync(lambda: open_store(settings.database_path, **options))
        return
    if engine == "memory":
        store: MessageStore = MemoryStore(queue_limit=settings.queue_limit)
    else:
        store = PostgresStore(request.getfixturevalue("postgres_url"), **options)
    io_loop.run_sync(store.open)
    yield store
    io_loop.run_sync(store.close)


class LogFile:
    """The application's log, in a file."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND)
        self._path = path
        self.lines = JsonLines(Output(self._fd), "lyftr", "production")

    def text(self) -> str:
        return self._path.read_text()

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[LogFile]:
    log_file = LogFile(tmp_path / "requests.log")
    yield log_file
    log_file.close()


@pytest.fixture
def app(settings: Config, store: MessageStore, log_file: LogFile) -> Application:
    return Application(settings, store, log_file.lines)


class Client:
    """Asks the application over a real socket; answers are Tornado's HTTPResponse."""

    def __init__(self, http_client: AsyncHTTPClient, url: str) -> None:
        self.url = url
        self._http_client = http_client

    async def request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> HTTPResponse:
        return await self._http_client.fetch(
            self.url + target,
            method=method,
            body=body,
            headers=headers,
            raise_error=False,
            allow_nonstandard_methods=True,
            follow_redirects=False,
            **options,
        )

    async def get(self, target: str, headers: Mapping[str, str] | None = None) -> HTTPResponse:
        return await self.request("GET", target, None, headers)

    async def deliver(
        self, content: Any, signature: str | None = None, secret: str = SECRET, **options: Any
    ) -> HTTPResponse:
        """Post a message, or bytes, to /webhook; signed rightly unless told otherwise."""
        body = as_body(content)
        if signature is None:
            signature = sign(secret.encode(), body)
        return await self.request("POST", "/webhook", body, {"X-Signature": signature}, **options)


@pytest.fixture
def client(
    io_loop: AsyncIOLoop, app: Application, settings: Config, http_client: AsyncHTTPClient
) -> Iterator[Client]:
    """The application on a port of its own."""

    async def listen() -> tuple[http1.Server, int]:
        server = http1.Server(app, http1.ClientLimits(body_bytes=settings.max_body_bytes))
        app.load = server.load
        return server, await server.listen("127.0.0.1", 0)

    server, port = io_loop.run_sync(listen)
    yield Client(http_client, f"http://127.0.0.1:{port}")
    io_loop.run_sync(lambda: server.drain(1))
