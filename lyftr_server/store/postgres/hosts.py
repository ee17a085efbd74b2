"""The hosts of a URL, and which of them is the primary: never one that another has followed."""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import asyncpg

from ..errors import Unopenable, Unusable
from .calls import FAILURES, within, words

# To reach one host. asyncpg's time-out is for all of a URL: behind a frozen first the second would
# never be tried.
HOST_SECONDS = 2.0
# To make a new connection ready.
READY_SECONDS = 5.0

_SETTINGS = {
    "application_name": "lyftr-server",
    # A cached generic plan makes some searches ten times slower.
    "plan_cache_mode": "force_custom_plan",
    # What a reader asked who went away ends soon.
    "client_connection_check_interval": "1000",
    "idle_in_transaction_session_timeout": "60000",
    # Ours are the only limits: a VACUUM, a migration or a search may take its time.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "default_transaction_isolation": "read committed",
    # Without warnings a commit that no standby has would look like any other.
    "client_min_messages": "warning",
}
# What only a person can mend: who we are, which database, what we may do.
_LASTING = ("28", "3D000", "42501", "3F000", "0A000")

_URL = re.compile(r"(postgres(?:ql)?://)([^@/?]*@)?([^/?]*)(.*)", re.DOTALL)

Ready = Callable[[Any], Awaitable[None]]


class Hosts:
    """All connections of a server share one; the host that took writes last comes first."""

    def __init__(self, url: str) -> None:
        self._urls = urls(url)
        self._surveyed = len(self._urls) == 1
        # PostgreSQL counts it up when a standby is promoted. A former primary that comes back has
        # a lower one; it takes writes as well, and knows nothing of what came after it.
        self.timeline = 0

    async def connect(self, ready: Ready) -> tuple[Any, int]:
        """Return a connection to the primary, made ready, and its timeline. Unopenable, Unusable.

        `ready` raises Unopenable for a host that will not do, and Unusable for a database that
        will not do on any.
        """
        if not self._surveyed:
            await asyncio.gather(*map(self._survey, self._urls))
        failures: list[tuple[str, Unopenable]] = []
        for url in list(self._urls):
            try:
                db = await _reach(url)
            except Unopenable as error:
                failures.append((url, error))
                continue
            try:
                timeline = await self._make_ready(db, ready)
            except Unusable:
                raise
            except Unopenable as error:
                failures.append((url, error))
                continue
            self._urls.remove(url)
            self._urls.insert(0, url)
            return db, timeline
        reasons = "; ".join(f"{host(url)}: {error}" for url, error in failures)
        if all(isinstance(error, Unusable) for _, error in failures):
            raise Unusable(reasons)
        raise Unopenable(f"no primary takes writes: {reasons}")

    async def _survey(self, url: str) -> None:
        """Hear of the newest primary before the first connection is used."""
        with suppress(Unopenable):
            db = await _reach(url)
            await self._make_ready(db, _nothing)
            db.terminate()
            self._surveyed = True

    async def _make_ready(self, db: Any, ready: Ready) -> int:
        try:
            return await within(READY_SECONDS, self._greet(db, ready))
        except BaseException as error:
            db.terminate()
            if isinstance(error, FAILURES):
                raise Unopenable(words(error)) from error
            raise

    async def _greet(self, db: Any, ready: Ready) -> int:
        timeline = await timeline_of(db)
        if timeline < self.timeline:
            raise Unopenable("a former primary, whose place another has taken")
        self.timeline = timeline
        await ready(db)
        return timeline


async def _nothing(_db: Any) -> None:
    """What a connection needs that is only asked who it is."""


async def _reach(url: str) -> Any:
    try:
        return await asyncpg.connect(
            url,
            timeout=HOST_SECONDS,
            target_session_attrs="read-write",
            server_settings=_SETTINGS,
        )
    except (*FAILURES, ValueError) as error:
        raise (Unusable if lasting(error) else Unopenable)(words(error)) from error


def lasting(error: BaseException | None) -> bool:
    """Tell whether it takes a person to mend what an error is about."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_LASTING)
    return isinstance(error, asyncpg.ClientConfigurationError | ssl.CertificateError)


async def timeline_of(db: Any) -> int:
    """Return the primary's timeline; 0 from a service that does not tell."""
    with suppress(asyncpg.PostgresError):
        name = await db.fetchval("SELECT pg_walfile_name(pg_current_wal_lsn())")
        return int(name[:8], 16)
    return 0


def urls(url: str) -> list[str]:
    """Return a URL for each of the hosts in one."""
    form = _URL.fullmatch(url)
    if form is None:
        return [url]
    scheme, user, hosts, rest = form.groups()
    return [f"{scheme}{user or ''}{host}{rest}" for host in hosts.split(",")]


def host(url: str) -> str:
    """Return where a URL leads, without user and password."""
    form = _URL.fullmatch(url)
    hosts = form[3].rpartition("@")[2] if form else ""  # a password may have an @ that it must not
    return hosts or "the default host"
