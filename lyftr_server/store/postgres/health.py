"""Whether a delivery would be stored now, and if not, why."""

from typing import Any

from ..errors import StoreError
from . import schema

# When a commit has waited for a standby for so long, others need not begin to.
STALLED_SECONDS = 3.0
# When a probe's own may be among those that wait.
WAITING_SECONDS = 0.5
OTHER_SCHEMA = "the database has another schema than this program's"
STALLED = "replication is stalled: no standby confirms what the primary has written"

# Our own of all servers; those of a connection that was dropped, too.
_STALLED = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
    AND application_name = 'lyftr-server' AND wait_event = 'SyncRep'
    AND clock_timestamp() - state_change > $1 * interval '1 second')
"""


async def stalled(db: Any, seconds: float) -> bool:
    """Tell whether a commit has waited for a standby for so long."""
    return bool(await db.fetchval(_STALLED, seconds))


async def check(db: Any) -> None:
    """Return if the database can be read, and is of this program's version; else StoreError."""
    if await schema.check(db) != schema.VERSION:
        raise StoreError(OTHER_SCHEMA)


async def explain(db: Any) -> None:
    """Raise StoreError, if it is known why a write does not end."""
    if await stalled(db, WAITING_SECONDS):
        raise StoreError(STALLED)


async def probe(db: Any, slot: int) -> None:
    """Write, as a commit does."""
    await db.execute("UPDATE slots SET last = last WHERE slot = $1", slot)
