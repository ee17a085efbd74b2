"""What tells a repeat from another message with its id, on every engine."""

import json

from ..records import Delivery, Message, Refusal, Result

_CONFLICT = json.dumps(
    [{"loc": ["body", "message_id"], "msg": "is stored with other content", "type": "conflict"}]
)


def same(message: Message, row: Message, *, ours: bool) -> bool:
    """Tell whether a repeat says what was stored; `ours`: its `ts` may be our time of receipt."""
    return message == row or (ours and message._replace(ts=row.ts) == row)


def conflict(delivery: Delivery, message: Message) -> Refusal:
    return Refusal(
        delivery.source,
        Result.CONFLICT,
        delivery.request_id,
        message.message_id,
        _CONFLICT,
        delivery.body,
    )
