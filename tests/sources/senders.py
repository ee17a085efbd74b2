"""Each kind of sender, as it signs and what it sends: parameters of the tests of every promise."""

import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from standardwebhooks import Webhook
from twilio.request_validator import RequestValidator

from lyftr_server.signature import sign, standard_key

from ..process import SECRET, as_body, message

STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
APP_SECRET = "app-secret"
VERIFY_TOKEN = "verify-token"
AUTH_TOKEN = "auth-token"
PUBLIC_URL = "https://hooks.example.com:8443/in"

# For Config and for the environment.
SETTINGS: dict[str, Any] = {
    "standard_webhooks_secrets": (standard_key(STANDARD_SECRET),),
    "whatsapp_app_secrets": (APP_SECRET.encode(),),
    "whatsapp_verify_tokens": (VERIFY_TOKEN,),
    "twilio_auth_tokens": (AUTH_TOKEN.encode(),),
    "public_url": PUBLIC_URL,
}
VARIABLES = {
    "STANDARD_WEBHOOKS_SECRET": STANDARD_SECRET,
    "WHATSAPP_APP_SECRET": APP_SECRET,
    "WHATSAPP_VERIFY_TOKEN": VERIFY_TOKEN,
    "TWILIO_AUTH_TOKEN": AUTH_TOKEN,
    "PUBLIC_URL": PUBLIC_URL,
}


class Sender(NamedTuple):
    """How to be one: who signs, and a body with one message of this id and text."""

    source: str
    route: str
    answer: bytes
    sign: Callable[[bytes], dict[str, str]]
    body: Callable[[str, str], bytes]

    def __repr__(self) -> str:
        return self.source


def _native(body: bytes) -> dict[str, str]:
    return {"X-Signature": sign(SECRET.encode(), body)}


def standard(
    body: bytes, at: datetime | None = None, secret: str = STANDARD_SECRET, name: str = "msg_1"
) -> dict[str, str]:
    """Return the headers that the published package makes."""
    at = at or datetime.now(UTC)
    return {
        "webhook-id": name,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(name, at, body.decode("utf-8", "replace")),
    }


def whatsapp(body: bytes, secret: str = APP_SECRET) -> dict[str, str]:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={digest}"}


class Fields:
    """A form as frameworks hand it to the published package: a name may have several values."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs

    def __iter__(self) -> Any:
        return iter([name for name, _ in self._pairs])

    def __len__(self) -> int:
        return len(self._pairs)

    def getlist(self, name: str) -> list[str]:
        return [value for key, value in self._pairs if key == name]


def twilio_signature(pairs: list[tuple[str, str]], url: str) -> str:
    return str(RequestValidator(AUTH_TOKEN).compute_signature(url, Fields(pairs)))


def _twilio(body: bytes) -> dict[str, str]:
    from urllib.parse import parse_qsl

    pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    return {
        "X-Twilio-Signature": twilio_signature(pairs, f"{PUBLIC_URL}/webhook/twilio"),
        "Content-Type": "application/x-www-form-urlencoded",
    }


def whatsapp_message(message_id: str, text: str) -> dict[str, Any]:
    return {
        "from": "919876543210",
        "id": message_id,
        "timestamp": "1736935200",
        "type": "text",
        "text": {"body": text},
    }


def whatsapp_body(*messages: Any, statuses: Any = (), **value: Any) -> bytes:
    metadata = {"display_phone_number": "14155550100", "phone_number_id": "1"}
    value = {"messaging_product": "whatsapp", "metadata": metadata, **value}
    for name, parts in (("messages", messages), ("statuses", statuses)):
        if parts:
            value[name] = list(parts)
    change = {"value": value, "field": "messages"}
    return json.dumps(
        {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]}
    ).encode()


def twilio_body(message_id: str, text: str) -> bytes:
    return urlencode(
        {
            "MessageSid": message_id,
            "From": "whatsapp:+919876543210",
            "To": "whatsapp:+14155550100",
            "Body": text,
            "NumMedia": "0",
        }
    ).encode()


def _own(message_id: str, text: str) -> bytes:
    return as_body(message(message_id, text=text))


OK = b'{"status": "ok"}'
NATIVE = Sender("native", "/webhook", OK, _native, _own)
STANDARD = Sender("standard_webhooks", "/webhook", OK, standard, _own)
WHATSAPP = Sender(
    "whatsapp",
    "/webhook/whatsapp",
    OK,
    whatsapp,
    lambda message_id, text: whatsapp_body(whatsapp_message(message_id, text)),
)
TWILIO = Sender("twilio", "/webhook/twilio", b"<Response/>", _twilio, twilio_body)
SENDERS = (NATIVE, STANDARD, WHATSAPP, TWILIO)
