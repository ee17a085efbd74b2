"""The application: configuration, store, metrics and routes, and the end of every request."""

import asyncio
import contextlib
import logging
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

import tornado.web
from tornado.httputil import HTTPServerRequest

from . import log
from .config import Config
from .feed import Feed
from .floods import Floods, Sums
from .handlers import Routes
from .http1 import Load, Upload
from .log import JsonLines, quoted
from .metrics import METHODS, Gauge, Metrics
from .peers import Proxies, names_of
from .records import Ended, Unsigned
from .sources import SOURCES, Source, sources_of
from .store import MessageStore, StoreError

logger = logging.getLogger(__name__)

PROBE_SECONDS = 2
MAX_LOGGED_PATH = 200
MAX_UNSIGNED = 100
_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}
# A path that is none of ours may hold anything: a telephone number, say.
_NUMBER = re.compile("(?:[0-9]|%3[0-9]){6,}")
_PEOPLE = "/people/"
# Of requests that nobody signed and no token came with.
_UNPROVEN = frozenset({400, 401, 403, 405, 413, 421})
# What became of deliveries that no handler saw.
_UNSERVED = {408: "aborted", 499: "aborted", 503: "unavailable"}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Application(tornado.web.Application):
    """Tornado's application with what its handlers share."""

    def __init__(
        self,
        config: Config,
        store: MessageStore,
        lines: JsonLines,
        table: Sequence[type[Source]] = SOURCES,
    ) -> None:
        super().__init__()
        self.config = config
        self.store = store
        self.feed = Feed(store)
        self.table = tuple(table)
        sources = sources_of(config, self.table)
        self._routes = Routes(sources)
        build = {**store.build, "app": config.app_name, "env": config.env}
        names = [source.name for each in sources.values() for source in each]
        self.metrics = Metrics(build, names, store.metrics, lines.dropped)
        self.unsigned: deque[Unsigned] = deque(maxlen=MAX_UNSIGNED)
        self.exports = 0  # that are being sent now
        self.reads: Counter[str] = Counter()  # that wait for the store, by the client's address
        self.draining_since: float | None = None  # as time.monotonic has it
        # From whoever serves this.
        self.load: Callable[[], Load] = lambda: Load(0, 0, 0, 0)
        self.names = names_of(config.allowed_hosts, config.loopback, config.read_token is not None)
        self._proxies = Proxies(config.trusted_proxies)
        self.floods = Floods(_later, self._tell_sums)
        self._lines = lines
        self._threshold = _LEVELS[config.log_level]
        # uuid4 for each request is 3 us; a random start and a counter are as unique.
        prefix = os.urandom(6).hex()
        self._request_ids = (f"{prefix}-{n:x}" for n in count(1)).__next__

    def __call__(self, request: HTTPServerRequest) -> Any:
        """Serve a whole request.

        Without Tornado's regular expressions, delegate and dispatch on awaitables: 12 us less.
        """
        handler, arguments = self._routes.find(request.path)
        # asyncio.create_task would be a step more, for a name that nobody asks for.
        serving = handler(self, request).serve(*arguments)
        return asyncio.get_running_loop().create_task(serving)

    # -- the end of a request: the only place that counts it and writes its line

    def record(self, ended: Ended, *, unserved: bool = False) -> None:
        """Count an ended request and log it. `unserved`: no handler saw it."""
        self.metrics.request(ended.method, ended.route, ended.status, ended.latency_ms)
        if ended.result is not None:
            self.metrics.result(ended.source or "", ended.result)
            self.feed.wake()
        level = _level(ended.status, ended.result)
        if _LEVELS[level] < self._threshold:
            return
        if _anybodys(ended, unserved) and not self.floods.passes(ended.status, ended.route):
            return
        fields = (
            f'"request_id":"{ended.request_id}","method":{quoted(ended.method)},'
            f'"path":{quoted(_logged_path(ended))},"status":{ended.status},"latency_ms":{ended.latency_ms:.2f}'
        )
        if ended.source is not None:
            fields += _delivery_fields(ended)
        if ended.faults is not None:
            fields += f',"faults":{ended.faults}'
        self._lines.request(level, fields)

    def _tell_sums(self, sums: Sums) -> None:
        fields = {"count": sum(sums.values()), "requests": sums}
        log.event(logger, logging.WARNING, "refused_requests_summed_up", **fields)

    def client(self, peer: str, headers: Mapping[str, str]) -> str:
        """Return the address of whoever sent a request with these headers through `peer`."""
        if not self._proxies.any:
            return peer
        return self._proxies.client(peer, headers.get("x-forwarded-for", ""))

    def request_id(self, given: str) -> str:
        """Return the request's own id, when it may be kept, or a new one."""
        return given if given and _REQUEST_ID.fullmatch(given) else self._request_ids()

    def wants_body(self, upload: Upload) -> bool:
        """Whether a request's body is of any use: only deliveries have one."""
        handler, _ = self._routes.find(upload.path())
        return handler.source is not None and upload.method == "POST"

    def unserved(self, upload: Upload, status: int, latency_ms: float) -> str:
        """Record a request that ended before a handler saw it (see http1); return its id."""
        path = upload.path()
        handler, _ = self._routes.find(path)
        request_id = self.request_id(upload.headers.get("x-request-id", ""))
        result = _UNSERVED.get(status) if handler.source is not None else None
        self.record(
            Ended(
                # What was no request may hold anything in the place of a method.
                upload.method if upload.method in METHODS else "OTHER",
                handler.route,
                path,
                status,
                latency_ms,
                request_id,
                self.client(upload.client, upload.headers),
                handler.source,
                result,
            ),
            unserved=True,
        )
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

    async def gauges(self) -> Sequence[Gauge]:
        """Read what a scrape shows beside the counters. None: not to be had now."""
        load = self.load()
        store = self.store
        stored = None
        unready = await self.unready()
        if unready is None:
            with contextlib.suppress(TimeoutError, StoreError):
                async with asyncio.timeout(PROBE_SECONDS):
                    stored = await store.total()
        return [
            Gauge("lyftr_ready", "1 when /health/ready says so.", unready is None),
            Gauge("lyftr_requests_in_flight", "Requests being served.", load.requests),
            Gauge("lyftr_connections", "Open client connections.", load.connections),
            Gauge("lyftr_body_bytes", "Bodies and unread answers in hand.", load.body_bytes),
            Gauge("lyftr_body_budget_bytes", "BODY_BUDGET_BYTES.", load.budget_bytes),
            Gauge("lyftr_queue_depth", "Messages that wait for a commit.", store.queue_depth),
            Gauge("lyftr_queue_limit", "QUEUE_LIMIT.", store.queue_limit),
            Gauge("lyftr_stored_messages", "Messages in the database.", stored),
            *(await store.gauges()),
        ]


def _level(status: int, result: str | None) -> str:
    if result == "invalid_signature" or status == 500:
        return "ERROR"
    return "WARNING" if result == "conflict" or status == 422 or status > 500 else "INFO"


def _anybodys(ended: Ended, unserved: bool) -> bool:
    """Whether it was refused, and anybody could have sent it: nothing shows that it was signed."""
    if unserved:
        return ended.status < 500 or ended.status in (501, 505)
    return ended.status in _UNPROVEN or (ended.status == 404 and ended.route == "unmatched")


def _logged_path(ended: Ended) -> str:
    path = ended.path
    if path == ended.route:
        return path
    if path.startswith(_PEOPLE):
        return f"{_PEOPLE}*"
    return _NUMBER.sub("*", path[:MAX_LOGGED_PATH])


def _later(seconds: float, call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, call)


def _delivery_fields(ended: Ended) -> str:
    dup = "true" if ended.result in ("duplicate", "conflict") else "false"
    fields = f',"client":{quoted(ended.client)},"dup":{dup}'
    if ended.message_id is not None:
        fields += f',"message_id":{quoted(ended.message_id)}'
    if ended.result is not None:
        fields += f',"result":"{ended.result}"'
    if ended.result == "invalid_signature":
        fields += ',"event":"invalid_signature"'
    return fields
