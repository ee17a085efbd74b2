"""Each kind of sender, as it signs and what it sends: parameters of the tests of every promise."""

import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode
from zlib import crc32

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


Content = dict[str, Any]


class Sender(NamedTuple):
    """How to be one: who signs, and how a message of our own form is said."""

    source: str
    route: str
    answer: bytes
    sign: Callable[[bytes], dict[str, str]]
    say: Callable[[Content], bytes]
    # What of the time is kept: Twilio's messages have none of their own.
    ts: Callable[[str], str | None] = str

    def __repr__(self) -> str:
        return self.source

    def body(self, message_id: str, text: str) -> bytes:
        return self.say(message(message_id, text=text))

    def stored(self, content: Content) -> Content:
        """Return what becomes of a message; a `ts` of None is the time of receipt."""
        return content | {"ts": self.ts(content["ts"])}


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


def _say_whatsapp(content: Content) -> bytes:
    part = whatsapp_message(content["message_id"], content["text"])
    at = datetime.fromisoformat(content["ts"].partition(".")[0].removesuffix("Z") + "+00:00")
    part |= {"from": content["from"].removeprefix("+"), "timestamp": str(int(at.timestamp()))}
    if content["text"] is None:
        part |= {"type": "unsupported"}
        del part["text"]
    to = {"display_phone_number": content["to"].removeprefix("+"), "phone_number_id": "1"}
    return whatsapp_body(part, metadata=to)


def _say_twilio(content: Content) -> bytes:
    fields = {
        "MessageSid": content["message_id"],
        "From": f"whatsapp:{content['from']}",
        "To": f"whatsapp:{content['to']}",
        "Body": content["text"],
        "NumMedia": "0",
    }
    return urlencode({name: value for name, value in fields.items() if value is not None}).encode()


OK = b'{"status": "ok"}'
NATIVE = Sender("native", "/webhook", OK, _native, as_body)
STANDARD = Sender("standard_webhooks", "/webhook", OK, standard, as_body)
WHATSAPP = Sender(
    "whatsapp",
    "/webhook/whatsapp",
    OK,
    whatsapp,
    _say_whatsapp,
    lambda ts: ts.partition(".")[0].removesuffix("Z") + "Z",
)
TWILIO = Sender("twilio", "/webhook/twilio", b"<Response/>", _twilio, _say_twilio, lambda ts: None)
SENDERS = (NATIVE, STANDARD, WHATSAPP, TWILIO)


def one_of(senders: Sequence[Sender], message_id: str) -> Sender:
    """Return who sends this message, each time."""
    return senders[crc32(message_id.encode()) % len(senders)]
