"""Our own format: one message, signed with X-Signature."""

from typing import ClassVar

from ..config import Config
from ..records import Delivery
from ..schema import parse_message
from ..signature import Verifier, sign
from .source import Field, Received, Source


class Native(Source):
    """POST /webhook: `X-Signature` is the HMAC-SHA256 of the body in hex."""

    name = "native"
    route = "/webhook"
    operation = "receiveMessage"
    sender = "our own format"
    about = """\
`X-Signature` is the HMAC-SHA256 of the body, byte for byte as sent, in hex; the key is
WEBHOOK_SECRET. To sign the body below, copy it from the box and run

    WEBHOOK_SECRET=... lyftr-server sign --body '...'

or, for a file, `lyftr-server sign < message.json`. What stands in the box is what is sent: a space
more, and the signature no longer fits. The example's signature is that of the example as it
stands, with the key `testsecret`.

Refused with 422 too: a key that occurs twice, NaN and Infinity, a BOM, invalid UTF-8; and in any
string, keys and unknown members included, U+0000 and lone surrogates."""
    variable = "WEBHOOK_SECRET"
    schema = "Message"
    example: ClassVar = {
        "message_id": "m1",
        "from": "+919876543210",
        "to": "+14155550100",
        "ts": "2025-01-15T10:00:00Z",
        "text": "Hello",
    }
    proof: ClassVar = (Field("X-Signature", "HMAC-SHA256 in hex.", "^[0-9A-Fa-f]{64}$"),)

    def __init__(self, *secrets: bytes) -> None:
        self._verifier = Verifier(*secrets)

    @classmethod
    def of(cls, config: Config) -> "Native":
        return cls(*config.secrets)

    @classmethod
    def sign(cls, key: bytes, body: bytes, url: str, at: float) -> dict[str, str]:
        return {"X-Signature": sign(key, body)}

    def verify(self, received: Received) -> str | None:
        return self._verifier.verify(received.body, received.headers.get("X-Signature", ""))

    def parse(self, received: Received) -> Delivery:
        return Delivery(self.name, (parse_message(received.body),))
