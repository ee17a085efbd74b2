"""Messages as a busy webhook sees them, and files of them signed beforehand."""

from __future__ import annotations

import contextlib
import hmac
import json
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

SENDERS = 10_000
DAYS = 90

_OPENINGS = """Hi,|Hello!|Good morning,|Namaste 🙏|Hey there,|Hola,|Dear team,
नमस्ते,|Thanks,|Sorry,|Urgent:"""
_CLAUSES = """where is my order|the parcel came today|could you call me back
I paid by card yesterday|is the shop open on Sunday|the code does not work
please send the invoice again|my account is locked|my address has changed|the size is too small
can I pick it up at the counter|¿cuándo llega el pedido?|I have been waiting for two hours
the driver could not find the house|मेरा ऑर्डर कब आएगा|do you have it in blue as well
the app shows an error after the update|that solved it, many thanks
we would like a table for four at eight|please cancel the second item and keep the first"""
_CLOSINGS = """Thank you!|Thanks 😊|Please reply soon.|Best regards, Anita|Cheers|धन्यवाद
See you.|Gracias.|Order no. {n}.|Ref {n}.|My number is the same as before."""


class Message(NamedTuple):
    """One message of the contract; `text` is always there in what the benchmark sends."""

    message_id: str
    sender: str
    recipient: str
    ts: str
    text: str


def messages(namespace: str, count: int) -> Iterator[Message]:
    """Yield `count` messages whose ids no other namespace has; the same ones on every call."""
    chance = random.Random(namespace)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = [(today - timedelta(days=day)).strftime("%Y-%m-%dT") for day in range(1, DAYS + 1)]
    clocks = [f"{hour:02d}:{minute:02d}:" for hour in range(24) for minute in range(60)]
    seconds = [f"{second:02d}Z" for second in range(60)]
    senders = [f"+9198{number:08d}" for number in chance.sample(range(10**8), SENDERS)]
    recipients = [f"+1415555{number:04d}" for number in range(100, 120)]
    texts = [_text(chance) for _ in range(4000)]
    draw = chance.random
    for number in range(count):
        yield Message(
            f"wamid.HBgM.{namespace}.{number:08x}",
            # Squared: the busiest of the senders write far more than the quiet ones.
            senders[int(SENDERS * draw() ** 2)],
            recipients[int(20 * draw())],
            days[int(DAYS * draw())] + clocks[int(1440 * draw())] + seconds[int(60 * draw())],
            texts[int(4000 * draw())],
        )


def _text(chance: random.Random) -> str:
    openings, clauses, closings = (
        re.split(r"[|\n]", phrases) for phrases in (_OPENINGS, _CLAUSES, _CLOSINGS)
    )
    middle = ", ".join(chance.sample(clauses, chance.choice((2, 4, 4, 5, 6))))
    closing = chance.choice(closings).format(n=chance.randrange(10**6))
    return f"{chance.choice(openings)} {middle}. {closing}"


def sign(secret: str, body: bytes) -> bytes:
    """Return the hex HMAC-SHA256 of `body`, so that the server's own code is not its judge."""
    return hmac.digest(secret.encode(), body, "sha256").hex().encode()


def write_bodies(prefix: Path, namespace: str, count: int, secret: str, threads: int) -> None:
    """Write lines of signature and JSON, for each of wrk's threads a file PREFIX.<thread>."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(f"{prefix}.{n}", "wb", 1 << 20)) for n in range(threads)]
        quoted: dict[str, str] = {}
        for number, message in enumerate(messages(namespace, count)):
            message_id, sender, recipient, ts, text = message
            if text not in quoted:
                quoted[text] = json.dumps(text, ensure_ascii=False)
            body = (
                f'{{"message_id":"{message_id}","from":"{sender}","to":"{recipient}",'
                f'"ts":"{ts}","text":{quoted[text]}}}'
            ).encode()
            files[number % threads].write(sign(secret, body) + body + b"\n")
