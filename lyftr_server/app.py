"""The application: configuration, store, metrics and routes, and the end of every request."""

import asyncio
import os
import re
from collections.abc import Callable
from itertools import count
from typing import Any

import tornado.web
from tornado.httputil import HTTPServerRequest

from .config import Config
from .handlers import EXACT, PATTERNS, NotFoundHandler
from .log import JsonLines, quoted
from .metrics import Gauges, Metrics
from .signature import Verifier
from .store import MessageStore, StoreError

PROBE_SECONDS = 2
MAX_LOGGED_PATH = 200
_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}
# A path that is none of ours may hold anything: a telephone number, say.
_NUMBER = re.compile("[0-9]{6,}")

Delivery = tuple[str | None, str]


class Application(tornado.web.Application):
    """Tornado's application with what its handlers share."""

    def __init__(self, config: Config, store: MessageStore, lines: JsonLines) -> None:
        super().__init__(
            # Tornado takes a path for a regular expression, and a dot for any character.
            [*((re.escape(path), handler) for path, handler in EXACT.items()), *PATTERNS],
            default_handler_class=NotFoundHandler,
            log_function=lambda handler: None,  # see record()
        )
        self.config = config
        self.store = store
        self.verifier = Verifier(*config.secrets)
        self.metrics = Metrics(config.app_name, config.env, store.metrics, lines.dropped)
        self.draining_since: float | None = None  # as time.monotonic has it
        # (requests in flight, connections), from whoever serves this
        self.load: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._lines = lines
        self._threshold = _LEVELS[config.log_level]
        # uuid4 for each request is 3 us; a random start and a counter are as unique.
        prefix = os.urandom(6).hex()
        self._request_ids = (f"{prefix}-{n:x}" for n in count(1)).__next__

    def __call__(self, request: HTTPServerRequest) -> Any:
        """Serve a whole request.

        For an exact path without Tornado's regular expressions, delegate and dispatch on
        awaitables: 12 us less. Rests on RequestHandler._execute; a test fails when that changes.
        """
        handler = EXACT.get(request.path)
        if handler is None:
            return super().__call__(request)
        return asyncio.create_task(handler(self, request)._execute([]))

    def next_request_id(self) -> str:
        return self._request_ids()

    # -- the end of a request: the only place that counts it and writes its line

    def record(
        self,
        method: str,
        route: str,
        path: str,
        status: int,
        latency_ms: float,
        request_id: str,
        delivery: Delivery | None = None,
    ) -> None:
        """Count an ended request and log it. `delivery`: (message_id, result) on /webhook."""
        self.metrics.request(method, route, status, latency_ms)
        message_id, result = delivery or (None, None)
        if result is not None:
            self.metrics.result(result)
        level = _level(status, result)
        if _LEVELS[level] < self._threshold:
            return
        if route != path:
            path = _NUMBER.sub("*", path[:MAX_LOGGED_PATH])
        fields = (
            f'"request_id":"{request_id}","method":{quoted(method)},"path":{quoted(path)},'
            f'"status":{status},"latency_ms":{latency_ms:.2f}'
        )
        if route == "/webhook":
            fields += _delivery_fields(message_id, result)
        self._lines.request(level, fields)

    def unserved(self, method: str, path: str, status: int, latency_ms: float) -> str:
        """Record a request that ended before a handler saw it (see http1); return its id."""
        handler = EXACT.get(path)
        route = handler.route if handler else "unmatched"
        gone = status in (408, 499) and route == "/webhook"
        delivery = (None, "aborted") if gone else None
        request_id = self.next_request_id()
        self.record(method, route, path, status, latency_ms, request_id, delivery)
        return request_id

    # -- health

    async def unready(self) -> str | None:
        """Return why no traffic should come here now, or None."""
        if self.draining_since is not None:
            return "draining"
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self.store.ping()
        except TimeoutError:
            return "the database does not answer"
        except StoreError as error:
            return str(error)
        return None

    async def gauges(self) -> Gauges:
        """Read what a scrape shows beside the counters."""
        in_flight, connections = self.load()
        files = self.store.files
        disk = files.disk_bytes()
        stored = backlog = None
        unready = await self.unready()
        if unready is None:
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    stored = await self.store.total()
                    backlog = await self.store.search_backlog()
            except (TimeoutError, StoreError):
                pass  # the samples are missing, which is what is known
        return Gauges(
            ready=unready is None,
            requests_in_flight=in_flight,
            connections=connections,
            queue_depth=self.store.queue_depth,
            queue_limit=self.store.queue_limit,
            database_bytes=files.database_bytes(),
            wal_bytes=files.wal_bytes(),
            disk_free_bytes=disk and disk[0],
            disk_size_bytes=disk and disk[1],
            stored_messages=stored,
            search_backlog=backlog,
        )


def _level(status: int, result: str | None) -> str:
    if result == "invalid_signature" or status == 500:
        return "ERROR"
    return "WARNING" if result == "conflict" or status > 500 else "INFO"


def _delivery_fields(message_id: str | None, result: str | None) -> str:
    fields = f',"dup":{"true" if result in ("duplicate", "conflict") else "false"}'
    if message_id is not None:
        fields += f',"message_id":{quoted(message_id)}'
    if result is not None:
        fields += f',"result":"{result}"'
    if result == "invalid_signature":
        fields += ',"event":"invalid_signature"'
    return fields
