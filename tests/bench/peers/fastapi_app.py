"""The webhook contract on FastAPI, SQLAlchemy's asyncio extension and aiosqlite, for comparison.

Written the way these libraries' manuals teach, and with what a careful developer adds: WAL, a
unique constraint that decides about repeats, an ASGI middleware in place of the slow
BaseHTTPMiddleware, orjson for the log line, uvicorn on uvloop and httptools. A 200 means the same
as ours: committed and synced (synchronous=FULL).
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from pydantic import AfterValidator, BaseModel, Field, ValidationError
from sqlalchemy import Index, event
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SECRET = os.environ["WEBHOOK_SECRET"].encode()
TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

HTTP_REQUESTS = Counter("http_requests", "Requests answered.", ["method", "path", "status"])
WEBHOOK_REQUESTS = Counter("webhook_requests", "Webhook deliveries by outcome.", ["result"])
LATENCY = Histogram(
    "request_latency_ms", "Time to answer, ms.", buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)
)

log = logging.getLogger("peer")
log.setLevel(logging.INFO)
log.addHandler(logging.StreamHandler(sys.stdout))

# One connection: SQLite has one writer at a time. Five made hardly more of it, and doubled the p99.
engine = create_async_engine(
    f"sqlite+aiosqlite:///{os.environ['DATABASE_PATH']}",
    pool_size=1,
    max_overflow=0,
    pool_timeout=60,
)
new_session = async_sessionmaker(engine, expire_on_commit=False)


@event.listens_for(engine.sync_engine, "connect")
def configure(connection: Any, _record: Any) -> None:
    """Make each new connection durable and patient."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA busy_timeout = 30000")
    cursor.close()


class Base(DeclarativeBase):
    """The registry of tables."""


class Row(Base):
    """A stored message, with the two indexes that the contract's listing needs."""

    __tablename__ = "messages"
    __table_args__ = (
        Index("by_instant", "ts_us", "message_id"),
        Index("by_sender", "from_msisdn", "ts_us", "message_id"),
    )

    seq: Mapped[int] = mapped_column(primary_key=True)
    message_id: Mapped[str] = mapped_column(unique=True)
    from_msisdn: Mapped[str]
    to_msisdn: Mapped[str]
    ts: Mapped[str]
    ts_us: Mapped[int]
    text: Mapped[str | None]
    created_at: Mapped[float]


# Built once, on the table and not the class: the ORM's own way in takes longer.
STORE = insert(Row.__table__).on_conflict_do_nothing(index_elements=["message_id"])


def _existing_instant(value: str) -> str:
    if not (match := TIMESTAMP.fullmatch(value)):
        raise ValueError("not of the form YYYY-MM-DDTHH:MM:SSZ")
    datetime.fromisoformat(match[1])
    return value


def _instant_us(value: str) -> int:
    whole, _, fraction = value.removesuffix("Z").partition(".")
    seconds = (datetime.fromisoformat(whole).replace(tzinfo=UTC) - EPOCH).total_seconds()
    return int(seconds) * 1_000_000 + int(f"{fraction:0<6.6}")


Msisdn = Annotated[str, Field(pattern=r"^\+[0-9]{1,32}$")]


class Message(BaseModel):
    """What a delivery must hold; anything else in it is ignored."""

    message_id: Annotated[str, Field(min_length=1, max_length=256)]
    sender: Annotated[Msisdn, Field(alias="from")]
    to: Msisdn
    ts: Annotated[str, AfterValidator(_existing_instant)]
    text: Annotated[str, Field(max_length=4096)] | None = None


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class AccessLog:
    """Count, time and log each request once its answer has been sent."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 500
        request_id = uuid.uuid4().hex
        facts = scope.setdefault("state", {})["facts"] = {}

        async def remember_status(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            await self.app(scope, receive, remember_status)
        finally:
            latency_ms = (time.perf_counter() - start) * 1000
            path = getattr(scope.get("route"), "path", "unmatched")
            HTTP_REQUESTS.labels(scope["method"], path, str(status)).inc()
            LATENCY.observe(latency_ms)
            line = {
                "ts": datetime.now(UTC).isoformat(),
                "level": "INFO",
                "request_id": request_id,
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "latency_ms": round(latency_ms, 3),
            }
            log.info(orjson.dumps(line | facts).decode())


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Make the table before the first request, close the engine after the last."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


async def session() -> AsyncIterator[AsyncSession]:
    """Give each request its own session."""
    async with new_session() as opened:
        yield opened


app = FastAPI(lifespan=lifespan)
app.add_middleware(AccessLog)


@app.post("/webhook")
async def webhook(
    request: Request, database: Annotated[AsyncSession, Depends(session)]
) -> Response:
    """Verify, validate, store, answer."""
    facts = request.state.facts
    body = await request.body()
    signature = request.headers.get("x-signature", "").encode("latin-1")
    expected = hmac.new(SECRET, body, hashlib.sha256).hexdigest().encode()
    if not hmac.compare_digest(signature.lower(), expected):
        facts["result"] = "invalid_signature"
        WEBHOOK_REQUESTS.labels("invalid_signature").inc()
        raise HTTPException(401, "invalid signature")
    try:
        message = Message.model_validate_json(body)
    except ValidationError as error:
        facts["result"] = "validation_error"
        WEBHOOK_REQUESTS.labels("validation_error").inc()
        detail = error.errors(include_url=False, include_context=False, include_input=False)
        raise HTTPException(422, detail) from error
    created = await store(database, message)
    facts |= {
        "message_id": message.message_id,
        "dup": not created,
        "result": "created" if created else "duplicate",
    }
    WEBHOOK_REQUESTS.labels(facts["result"]).inc()
    return Response(b'{"status": "ok"}', media_type="application/json")


async def store(database: AsyncSession, message: Message) -> bool:
    """Store durably; false when the id was there before."""
    values = {
        "message_id": message.message_id,
        "from_msisdn": message.sender,
        "to_msisdn": message.to,
        "ts": message.ts,
        "ts_us": _instant_us(message.ts),
        "text": message.text,
        "created_at": time.time(),
    }
    result = await database.execute(STORE, values)
    await database.commit()
    return bool(result.rowcount)


@app.get("/health/live")
async def live() -> dict[str, str]:
    """Answer while the process runs."""
    return {"status": "ok"}


@app.get("/metrics")
async def metrics() -> Response:
    """Show the counters to Prometheus."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
