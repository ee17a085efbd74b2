"""The life of a server: open, listen, drain, close."""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
from time import monotonic

import tornado
import uvloop

from . import __version__, config, http1, log
from .app import Application
from .config import Config
from .log import JsonLines, Output
from .store import MessageStore, Unopenable, Unusable, store_of
from .systemd import Systemd

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 10


class Unstartable(Exception):
    """The server cannot start; the words are for the operator.

    `may_pass`: whether it may well start later as it is, so that a supervisor should try again.
    """

    def __init__(self, words: str, *, may_pass: bool = False) -> None:
        super().__init__(words)
        self.may_pass = may_pass


def run(
    settings: Config, output: Output, lines: JsonLines, limits: http1.ClientLimits | None = None
) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status. Unstartable when it cannot begin."""
    limits = limits or http1.ClientLimits(
        body_bytes=settings.max_body_bytes, budget_bytes=settings.body_budget_bytes
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Process(settings, output, lines, limits).run())


class _Process:
    def __init__(
        self, settings: Config, output: Output, lines: JsonLines, limits: http1.ClientLimits
    ) -> None:
        self._config = settings
        self._output = output
        self._lines = lines
        self._limits = limits
        self._stop = asyncio.Event()
        self._status = 0
        self._systemd = Systemd(config.notify_socket())

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        self._output.attach(loop)
        try:
            return await self._run(loop)
        finally:
            self._systemd.close()
            self._output.detach()

    async def _run(self, loop: asyncio.AbstractEventLoop) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            store = store_of(self._config, self._on_fatal)
            opened = await self._open(store)
        except Unusable as error:
            raise Unstartable(f"DATABASE_URL: {error}") from error
        except Unopenable as error:
            raise Unstartable(f"DATABASE_URL: {error}", may_pass=True) from error
        if opened:
            try:
                await self._serve(store)
            finally:
                await self._close(store)
        log.event(logger, logging.INFO, "stopped", exit_status=self._status)
        return self._status

    async def _open(self, store: MessageStore) -> bool:
        """Open the store; return False when we are to stop while it waits for its database."""
        opening = asyncio.ensure_future(store.open())
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait([opening, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if self._stop.is_set() and store.waiting:
            opening.cancel()
            await asyncio.wait([opening])
        if opening.cancelled():
            return False
        await opening
        return True

    async def _serve(self, store: MessageStore) -> None:
        settings = self._config
        application = Application(settings, store, self._lines)
        server = http1.Server(application, self._limits)
        application.load = server.load
        _raise_open_files()
        try:
            port = await server.listen(settings.host, settings.port)
        except OSError as error:
            reason = error.strerror or str(error)
            raise Unstartable(
                f"HOST, PORT: cannot listen on {settings.host}:{settings.port}: {reason}",
                may_pass=not isinstance(error, PermissionError),
            ) from error
        if settings.read_token is None and not settings.loopback:
            log.event(logger, logging.WARNING, "reads_are_open", detail="READ_TOKEN is not set")
        if settings.short_secrets:
            log.event(
                logger,
                logging.WARNING,
                "short_secrets",
                detail=f"{', '.join(settings.short_secrets)}: under {config.SECRET_BYTES} bytes",
            )
        log.event(
            logger,
            logging.INFO,
            "listening",
            host=settings.host,
            port=port,
            version=__version__,
            tornado=tornado.version,
            database=store.name,
        )
        # What lives now lives to the end: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        watchdog = asyncio.create_task(self._systemd.keep_told(config.watchdog_seconds()))
        await self._stop.wait()
        self._systemd.tell("STOPPING=1")
        log.event(logger, logging.INFO, "draining", requests_in_flight=server.in_flight)
        application.draining_since = monotonic()
        application.feed.end()
        whole = await server.drain(settings.drain_seconds, settings.drain_delay_seconds)
        application.floods.sum_up()
        watchdog.cancel()
        if not whole:
            log.event(logger, logging.WARNING, "drain_timed_out", seconds=settings.drain_seconds)

    async def _close(self, store: MessageStore) -> None:
        if self._status:
            # To close would copy the log once more and drop it, as if all before had been synced.
            log.event(logger, logging.INFO, "stopped", exit_status=self._status)
            self._exit_now(self._status)
        # Not asyncio.timeout: what it cancels would wait for the disk once more, to clean up.
        closing = asyncio.ensure_future(store.close())
        await asyncio.wait([closing], timeout=CLOSE_SECONDS)
        if not closing.done():
            log.event(logger, logging.ERROR, "close_timed_out", detail="the disk does not answer")
            self._exit_now(1)
        closing.result()
        # Handlers whose messages were committed just now write their lines.
        await asyncio.sleep(0)

    def _on_signal(self, number: int) -> None:
        if self._stop.is_set():
            self._exit_now(128 + number)
        self._stop.set()

    def _on_fatal(self, reason: str) -> None:
        self._status = 1
        log.event(logger, logging.CRITICAL, "sync_failed", detail=reason)
        self._stop.set()

    def _exit_now(self, status: int) -> None:
        self._output.close(patience_seconds=0.5)
        # A thread that waits for a dead disk cannot be joined.
        os._exit(status)


def _raise_open_files() -> None:
    """Use all the descriptors that we may have: each client takes one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # "unlimited" is not granted everywhere
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
