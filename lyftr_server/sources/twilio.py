"""Twilio's webhooks for WhatsApp and SMS: a form, signed together with the URL it is sent to.

twilio.com/docs/usage/security: base64 of the HMAC-SHA1 over the URL, as Twilio has it, and all
fields sorted by name, each name with its value behind it.
"""

import json
import re
import time
from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import unquote_to_bytes, urlsplit

from ..config import Config
from ..records import Delivery, Event, Message
from ..schema import Fault, Invalid
from ..signature import Sha1Verifier, sign_sha1
from .fields import identity, name_of, words
from .source import Field, Received, Source

# More than Twilio sends: 1,600 characters of text and the addresses of ten media.
_MAX_FIELDS = 1000
_MAX_BYTES = 128 << 10
_SIGNATURE = re.compile("[A-Za-z0-9+/]{27}=")
_PORTS = {"https": 443, "http": 80}

Form = Mapping[bytes, list[bytes]]


class Twilio(Source):
    """POST /webhook/twilio."""

    name = "twilio"
    route = "/webhook/twilio"
    operation = "receiveTwilio"
    sender = "Twilio"
    about = """\
`X-Twilio-Signature` is the HMAC-SHA1 of PUBLIC_URL, the path, the query and the sorted fields, in
base64; the key is the account's auth token. Messages have the time of receipt as `ts`; status
callbacks become events."""
    variable = "TWILIO_AUTH_TOKEN"
    example: ClassVar = {
        "MessageSid": "SM00000000000000000000000000000001",
        "From": "whatsapp:+919876543210",
        "To": "whatsapp:+14155550100",
        "Body": "Hello",
    }
    proof: ClassVar = (Field("X-Twilio-Signature", "HMAC-SHA1 in base64.", "^[A-Za-z0-9+/]+=$"),)
    media_type = "application/x-www-form-urlencoded"
    answer = b"<Response/>"
    answer_type = "text/xml"

    def __init__(self, public_url: str, *secrets: bytes) -> None:
        self._verifier = Sha1Verifier(*secrets)
        self._urls = [f"{url}{self.route}" for url in _spellings(public_url.rstrip("/"))]

    @classmethod
    def of(cls, config: Config) -> "Twilio | None":
        if not config.twilio_auth_tokens or config.public_url is None:
            return None
        return cls(config.public_url, *config.twilio_auth_tokens)

    @classmethod
    def sign(cls, key: bytes, body: bytes, url: str, at: float) -> dict[str, str]:
        signed = url.encode() + _signed(_form(body) or {})
        return {"X-Twilio-Signature": sign_sha1(key, signed), "Content-Type": cls.media_type}

    def verify(self, received: Received) -> str | None:
        signature = received.headers.get("X-Twilio-Signature", "")
        if not _SIGNATURE.fullmatch(signature) or len(received.body) > _MAX_BYTES:
            return None
        # The signature is over the fields, so these have to be taken apart before: nothing more
        # than splitting and percent-decoding.
        form = _form(received.body)
        if form is None:
            return None
        query = f"?{received.query}" if received.query else ""
        fields = _signed(form)
        urls = (f"{url}{query}".encode("latin-1", "replace") for url in self._urls)
        return self._verifier.verify((url + fields for url in urls), signature)

    def parse(self, received: Received) -> Delivery:
        form = _form(received.body)
        if not form:
            raise Invalid(Fault(("body",), "must be a form with fields", "form_invalid"))
        fields = {_text(name): [_text(value) for value in form[name]] for name in form}
        kept = {name: each[0] if len(each) == 1 else each for name, each in fields.items()}
        # In ASCII: bytes that are no UTF-8 stand in it as escapes, and nothing is lost.
        payload = json.dumps(kept)
        first = {name: each[0] for name, each in fields.items()}
        message = _message(first, received.at)
        if message is not None:
            return Delivery(self.name, (message,), (payload,))
        status = first.get("MessageStatus") or first.get("SmsStatus")
        kind = f"status.{name_of(status)}" if status else "unknown"
        message_id = identity(first.get("MessageSid") or first.get("SmsSid"))
        return Delivery(self.name, events=(Event(kind, message_id, payload),))


def _message(fields: Mapping[str, str], received_at: float) -> Message | None:
    """Return the message that a person sent; None for a status and anything else."""
    message_id = identity(fields.get("MessageSid"))
    sender, recipient = _address(fields.get("From")), _address(fields.get("To"))
    # A status callback has the same fields, but for these.
    incoming = "Body" in fields or "NumMedia" in fields
    if fields.get("MessageStatus", "received") != "received" or not incoming:
        return None
    if message_id is None or sender is None or recipient is None:
        return None
    ts = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(received_at))
    return Message(message_id, sender, recipient, ts, words(fields.get("Body")))


def _address(value: str | None) -> str | None:
    """Return a number with its plus; a short code gets one, a name stays."""
    address = (value or "").removeprefix("whatsapp:")
    if re.fullmatch("[0-9]{1,32}", address):
        return f"+{address}"
    return identity(address)


def _form(body: bytes) -> Form | None:
    """Return the fields in their order, each with its values; None for more than Twilio sends."""
    pairs = body.split(b"&", _MAX_FIELDS)
    if len(pairs) > _MAX_FIELDS:
        return None
    form: dict[bytes, list[bytes]] = {}
    for pair in pairs:
        # Not parse_qsl: from bytes it makes text, and fails where that is no ASCII.
        name, _, value = pair.replace(b"+", b" ").partition(b"=")
        if pair:
            form.setdefault(unquote_to_bytes(name), []).append(unquote_to_bytes(value))
    return form


def _signed(form: Form) -> bytes:
    """Return the fields as they are signed: sorted, and each value of a field once."""
    return b"".join(name + value for name in sorted(form) for value in sorted(set(form[name])))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _spellings(url: str) -> list[str]:
    """Return the URL with its port and without: Twilio signs now the one, now the other."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    port = parts.port or _PORTS.get(parts.scheme)
    name = host.removesuffix(f":{parts.port}") if parts.port else host
    users = parts.netloc[: len(parts.netloc) - len(host)]
    spelled = [host, name, f"{name}:{port}"]
    return list(dict.fromkeys(parts._replace(netloc=f"{users}{each}").geturl() for each in spelled))
