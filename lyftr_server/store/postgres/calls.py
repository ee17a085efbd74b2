"""Calls to asyncpg: what they raise, how long they may take, and which are made again."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

T = TypeVar("T")

# Whatever asyncpg raises when a server or its connection fails.
FAILURES = (asyncpg.PostgresError, asyncpg.InternalClientError, asyncpg.InterfaceError, OSError)
# Deadlocks and serialization failures: nothing was done, and the next time it may.
_AGAIN = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
_TRIES = 5


async def within(seconds: float, work: Awaitable[T]) -> T:
    """Return what work returns; TimeoutError when it takes longer. The caller then terminates.

    Nothing is cancelled: a cancelled call makes asyncpg open another connection for its
    CancelRequest, without a limit of time. It ends with its connection.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
    finally:
        if not task.done():
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    if not done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return task.result()


async def again(work: Callable[[], Awaitable[T]]) -> T:
    """Do one transaction, a few times when locks or other transactions stand in its way."""
    for _ in range(_TRIES - 1):
        try:
            return await work()
        except _AGAIN:
            pass
    return await work()


def words(error: BaseException) -> str:
    """Return what an error says, without its DETAIL, which may quote a row."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.args[0]) if error.args else str(error.sqlstate)
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "it takes no writes: a standby, or read-only"
    if isinstance(error, asyncpg.InternalClientError):
        return "the connection broke"  # its own words are of its states
    if isinstance(error, TimeoutError):
        return str(error) or "no answer in time"
    if isinstance(error, OSError):
        return error.strerror or "cannot be reached"
    return str(error).partition("\n")[0]
