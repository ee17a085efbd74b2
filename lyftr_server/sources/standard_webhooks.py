"""Our own format, signed as Standard Webhooks 1.0.0 has it (standardwebhooks.com)."""

import re
from hashlib import sha256
from typing import ClassVar

from ..config import Config
from ..records import Delivery
from ..schema import parse_message
from ..signature import Verifier, sign_standard
from .source import Field, Received, Source

TOLERANCE_SECONDS = 300
_TIMESTAMP = re.compile("[0-9]{1,15}")


class StandardWebhooks(Source):
    """POST /webhook with `webhook-id`, `webhook-timestamp` and `webhook-signature`."""

    name = "standard_webhooks"
    route = "/webhook"
    operation = "receiveMessage"
    sender = "our own format, signed by Standard Webhooks"
    about = """\
With STANDARD_WEBHOOKS_SECRET set, a body may come signed by Standard Webhooks 1.0.0 instead. The
timestamp may differ from the server's clock by 300 s at most."""
    variable = "STANDARD_WEBHOOKS_SECRET"
    schema = "Message"
    proof: ClassVar = (
        Field("webhook-id", "The delivery's id.", "."),
        Field("webhook-timestamp", "Seconds since 1970.", "^[0-9]+$"),
        Field("webhook-signature", "`v1,` and base64; several with spaces between.", "^v1,"),
    )

    def __init__(self, *secrets: bytes) -> None:
        self._verifier = Verifier(*secrets)

    @classmethod
    def of(cls, config: Config) -> "StandardWebhooks | None":
        secrets = config.standard_webhooks_secrets
        return cls(*secrets) if secrets else None

    @classmethod
    def sign(cls, key: bytes, body: bytes, url: str, at: float) -> dict[str, str]:
        # The same body is the same delivery, whenever it is sent.
        webhook_id = f"msg_{sha256(body).hexdigest()[:32]}"
        return {
            "webhook-id": webhook_id,
            "webhook-timestamp": str(int(at)),
            "webhook-signature": sign_standard(key, webhook_id, int(at), body),
        }

    def verify(self, received: Received) -> str | None:
        signatures = received.headers.get("webhook-signature", "")
        webhook_id = received.headers.get("webhook-id", "")
        timestamp = received.headers.get("webhook-timestamp", "")
        if not (signatures and webhook_id and _TIMESTAMP.fullmatch(timestamp)):
            return None
        if abs(received.at - int(timestamp)) > TOLERANCE_SECONDS:
            return None
        return self._verifier.verify_standard(webhook_id, timestamp, received.body, signatures)

    def parse(self, received: Received) -> Delivery:
        return Delivery(self.name, (parse_message(received.body),))
