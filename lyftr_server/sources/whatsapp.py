"""The WhatsApp Cloud API: batches of messages, statuses and whatever else Meta sends.

developers.facebook.com/documentation/business-messaging/whatsapp/webhooks: an object with `entry`,
each entry with `changes`, each change with a `field` and a `value`. Parsed is what a message needs;
the rest, and all that nobody knows yet, is kept as events.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..config import Config
from ..records import Delivery, Event, Message
from ..schema import Fault, Invalid
from ..signature import Verifier, matches, sign
from .fields import identity, instant, name_of, words
from .scanner import Part, Scanner
from .source import Field, Received, Source

_PREFIX = "sha256="
_CHALLENGE = re.compile("[A-Za-z0-9_-]{1,256}")
# Of a change's value: what says whose it is, and is nothing by itself.
_ENVELOPE = {"messaging_product", "metadata"}
# Messages that only tell of another one.
_ABOUT_ANOTHER = {"edit", "revoke"}

Fields = dict[str, Any]


class WhatsApp(Source):
    """POST /webhook/whatsapp, and Meta's set-up call with GET."""

    name = "whatsapp"
    route = "/webhook/whatsapp"
    operation = "receiveWhatsApp"
    sender = "the WhatsApp Cloud API"
    about = """\
`X-Hub-Signature-256` is `sha256=` and the HMAC-SHA256 of the body in hex; the key is the app's
secret. What persons sent becomes messages, all else becomes events: see /events."""
    variable = "WHATSAPP_APP_SECRET"
    example: ClassVar = {
        "object": "whatsapp_business_account",
        "entry": [
            {
                "id": "102290129340398",
                "changes": [
                    {
                        "field": "messages",
                        "value": {
                            "messaging_product": "whatsapp",
                            "metadata": {
                                "display_phone_number": "14155550100",
                                "phone_number_id": "106540352242922",
                            },
                            "messages": [
                                {
                                    "from": "919876543210",
                                    "id": "wamid.m1",
                                    "timestamp": "1736935200",
                                    "type": "text",
                                    "text": {"body": "Hello"},
                                }
                            ],
                        },
                    }
                ],
            }
        ],
    }
    proof: ClassVar = (
        Field(
            "X-Hub-Signature-256", "`sha256=` and HMAC-SHA256 in hex.", "^sha256=[0-9A-Fa-f]{64}$"
        ),
    )
    greeting: ClassVar = (
        Field("hub.mode", "Always `subscribe`.", "^subscribe$", "subscribe"),
        Field("hub.verify_token", "WHATSAPP_VERIFY_TOKEN.", ".", "testsecret"),
        Field("hub.challenge", "What is answered.", "^[A-Za-z0-9_-]{1,256}$", "1158201444"),
    )

    def __init__(self, secrets: Sequence[bytes], verify_tokens: Sequence[str] = ()) -> None:
        self._verifier = Verifier(*secrets)
        self._verify_tokens = tuple(verify_tokens)
        self.methods = (("GET", "HEAD") if verify_tokens else ()) + (("POST",) if secrets else ())

    @classmethod
    def of(cls, config: Config) -> "WhatsApp | None":
        source = cls(config.whatsapp_app_secrets, config.whatsapp_verify_tokens)
        return source if source.methods else None

    @classmethod
    def sign(cls, key: bytes, body: bytes, url: str, at: float) -> dict[str, str]:
        return {"X-Hub-Signature-256": _PREFIX + sign(key, body)}

    def greet(self, arguments: Mapping[str, Sequence[bytes]]) -> bytes | None:
        def given(name: str) -> str:
            values = arguments.get(name, ())
            return values[0].decode("utf-8", "surrogateescape") if len(values) == 1 else ""

        token, challenge = given("hub.verify_token"), given("hub.challenge")
        fits = any(matches(each, token) for each in self._verify_tokens)
        if not fits or given("hub.mode") != "subscribe":
            return None
        # Nothing that a browser could take for a page.
        return challenge.encode() if _CHALLENGE.fullmatch(challenge) else None

    def verify(self, received: Received) -> str | None:
        given = received.headers.get("X-Hub-Signature-256", "")
        if not given.startswith(_PREFIX):
            return None
        return self._verifier.verify(received.body, given[len(_PREFIX) :])

    def parse(self, received: Received) -> Delivery:
        scan = Scanner(received.body)
        if not scan.at_object:
            raise Invalid(Fault(("body",), "must be a JSON object", "object_type"))
        batch = _Batch()
        entries = False
        for key in scan.members():
            if key == "entry" and scan.at_array:
                entries = True
                for _ in scan.elements():
                    batch.entry(scan)
            else:
                scan.value()
        scan.end()
        if not entries:
            raise Invalid(Fault(("body", "entry"), "must be a list", "missing"))
        return Delivery(
            self.name, tuple(batch.messages), tuple(batch.payloads), tuple(batch.events)
        )


class _Batch:
    """What was found in a body so far."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.payloads: list[str] = []
        self.events: list[Event] = []

    def entry(self, scan: Scanner) -> None:
        """Take an entry: {"id": ..., "time": ..., "changes": [...]}."""
        if not scan.at_object:
            self._event("unknown", None, scan.value().text)
            return
        start = scan.at
        changes: list[_Change] = []
        others = False
        for key in scan.members():
            if key == "changes" and scan.at_array:
                changes += [_Change(scan) for _ in scan.elements()]
            else:
                others = others or key not in ("id", "time")
                scan.value()
        # What an account update is about, and when, stands in the entry: with one change, as Meta
        # sends them, the entry is its own JSON.
        text = scan.text_from(start)
        for change in changes:
            self._change(change, text if len(changes) == 1 else change.text)
        if others or not changes:
            self._event("unknown", None, text)

    def _change(self, change: "_Change", text: str) -> None:
        if not change.parts:
            self._event(change.field, None, text)
            return
        for key, part in change.parts:
            if key == "messages":
                self._message(change, part)
            elif key == "statuses":
                status = _object(part)
                kind = f"status.{name_of(status.get('status'))}"
                self._event(kind, identity(status.get("id")), part.text)
            else:
                self._other(key, part)

    def _message(self, change: "_Change", part: Part) -> None:
        content = _object(part)
        kind = name_of(content.get("type"))
        message = None if kind in _ABOUT_ANOTHER else _message(content, change.to)
        if message is None:
            named = _object_at(content, kind).get("original_message_id", content.get("id"))
            self._event(f"message.{kind}", identity(named), part.text)
            return
        self.messages.append(message)
        self.payloads.append(part.text)

    def _other(self, key: str, part: Part) -> None:
        content = _object(part)
        kind = _KINDS.get(key, key)
        detail = content.get("type") if key == "message_echoes" else content.get("event")
        if kind in ("message_echo", "call") and isinstance(detail, str):
            kind = f"{kind}.{name_of(detail)}"
        inner = _object_at(content, name_of(content.get("type")))
        named = inner.get("original_message_id", content.get("id"))
        self._event(kind, identity(named) if kind != "contact" else None, part.text)

    def _event(self, kind: str, message_id: str | None, text: str) -> None:
        self.events.append(Event(kind, message_id, text))


_KINDS = {
    "contacts": "contact",
    "message_echoes": "message_echo",
    "calls": "call",
    "errors": "error",
}


class _Change:
    """A change, read: {"field": ..., "value": {...}}, whichever comes first."""

    def __init__(self, scan: Scanner) -> None:
        self.field = "unknown"
        self.to: str | None = None
        self.parts: list[tuple[str, Part]] = []  # the value's own parts, each under its key
        start = scan.at
        if not scan.at_object:
            self.text = scan.value().text
            return
        for key in scan.members():
            if key == "value" and scan.at_object:
                self._value(scan)
            elif key == "field":
                self.field = name_of(scan.value().value)
            else:
                scan.value()
        self.text = scan.text_from(start)

    def _value(self, scan: Scanner) -> None:
        known = False
        for key in scan.members():
            if key in _LISTS and scan.at_array:
                known = True
                for _ in scan.elements():
                    self.parts.append((key, scan.value()))
                continue
            part = scan.value()
            if key == "metadata":
                number = str(_object(part).get("display_phone_number", ""))
                digits = "".join(re.findall("[0-9]", number))
                self.to = f"+{digits}" if 1 <= len(digits) <= 32 else None
            elif key not in _ENVELOPE:
                self.parts.append((f"messages.{name_of(key)}", part))
        # A value without any of our lists is an update of something: kept as a whole.
        if not known:
            self.parts.clear()


_LISTS = {"messages", "statuses", *_KINDS}


def _message(content: Fields, to: str | None) -> Message | None:
    """Return the message that a person sent, None when something that it needs is not there."""
    message_id = identity(content.get("id"))
    sender = _sender(content)
    ts = instant(content.get("timestamp"))
    if message_id is None or sender is None or to is None or ts is None:
        return None
    return Message(message_id, sender, to, ts, words(_text(content)))


def _sender(content: Fields) -> str | None:
    number = content.get("from")
    if isinstance(number, str) and re.fullmatch(r"\+?[0-9]{1,32}", number):
        return f"+{number.lstrip('+')}"
    # Who hides their number behind a user name has an id, such as US.13491208655302741918.
    return identity(content.get("from_user_id")) or identity(number)


def _text(content: Fields) -> Any:
    """Return what a person would call the message's text, whatever its type."""
    kind = str(content.get("type"))
    inner = _object_at(content, kind)
    if kind == "interactive":
        return _object_at(inner, str(inner.get("type"))).get("title")
    keys = _TEXTS.get(kind, ("caption",))
    return next((inner[key] for key in keys if inner.get(key)), None)


_TEXTS = {
    "text": ("body",),
    "button": ("text",),
    "reaction": ("emoji",),
    "location": ("name",),
    "order": ("text",),
}


def _object(part: Part) -> Fields:
    return part.value if isinstance(part.value, dict) else {}


def _object_at(content: Fields, key: str) -> Fields:
    value = content.get(key)
    return value if isinstance(value, dict) else {}
