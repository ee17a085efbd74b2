"""What was refused: signed bodies to be looked at and repaired, and what is known of unsigned."""

import json
from base64 import b64encode
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

from ..base import PRIVATE
from ..records import StoredRefusal, iso
from ..schema import RefusedQuery, parse_no_query, parse_refused_query
from ..store import MessageStore, Rows
from .messages import ReadHandler


class RefusedHandler(ReadHandler):
    """GET /refused: signed bodies that could not be stored as asked, the newest first."""

    route = "/refused"

    async def get(self) -> None:
        query = parse_refused_query(self.request.query_arguments)
        page: Rows[StoredRefusal] = await self.read(self.application.store.refused(query))
        content = {
            "data": [_as_json(row) for row in page.data],
            "limit": query.limit,
            "next_cursor": page.next_cursor,
        }
        self.reply_json(200, content, PRIVATE)


class RefusedExportHandler(ReadHandler):
    """GET /refused.ndjson: every one that matches, one JSON object a line."""

    route = "/refused.ndjson"

    async def get(self) -> None:
        query = parse_refused_query(self.request.query_arguments, paged=False)
        await self.export(_chunks(self.application.store, query), _as_line)


class UnsignedHandler(ReadHandler):
    """GET /refused/unsigned: the last bodies that nobody had signed; nothing of their content."""

    route = "/refused/unsigned"

    async def get(self) -> None:
        parse_no_query(self.request.query_arguments)
        rows = [
            row._asdict() | {"at": iso(int(row.at * 1_000_000))}
            for row in reversed(self.application.unsigned)
        ]
        self.reply_json(200, {"data": rows}, PRIVATE)


async def _chunks(
    store: MessageStore, query: RefusedQuery
) -> AsyncGenerator[Sequence[StoredRefusal], None]:
    cursor: str | None = ""
    while cursor is not None:
        rows, cursor = await store.refused(replace(query, cursor=cursor or None))
        if rows:
            yield rows


def _as_json(row: StoredRefusal) -> dict[str, Any]:
    content = {
        "id": row.id,
        "at": iso(row.received_us),
        "source": row.source,
        "result": row.result,
        "request_id": row.request_id,
        "message_id": row.message_id,
        "size": len(row.body),
        "detail": json.loads(row.detail),
    }
    try:
        return content | {"body": row.body.decode("utf-8")}
    except UnicodeDecodeError:
        # No JSON string can hold it: what is readable, and beside it every byte.
        readable = row.body.decode("utf-8", "replace")
        return content | {"body": readable, "body_base64": b64encode(row.body).decode()}


def _as_line(row: StoredRefusal) -> str:
    return json.dumps(_as_json(row), ensure_ascii=False) + "\n"
