"""Twilio, with the published package as the sender."""

import json
from urllib.parse import urlencode

import pytest

from lyftr_server.sources import Received
from lyftr_server.sources.twilio import Twilio

from ..conftest import Client
from .conftest import Post
from .senders import AUTH_TOKEN, TWILIO, twilio_signature

SMS = [
    ("MessageSid", "SM1"),
    ("From", "whatsapp:+919876543210"),
    ("To", "whatsapp:+14155550100"),
    ("Body", "1 + 1 = 2 & נו"),
    ("NumMedia", "0"),
]


def source(url: str = "https://example.com") -> Twilio:
    return Twilio(url, AUTH_TOKEN.encode(), b"previous")


def verify(
    signed: list[tuple[str, str]],
    url: str = "https://example.com/webhook/twilio",
    *,
    public_url: str = "https://example.com",
    query: str = "",
    body: bytes | None = None,
) -> str | None:
    headers = {"X-Twilio-Signature": twilio_signature(signed, url)}
    body = urlencode(signed).encode() if body is None else body
    return source(public_url).verify(Received(headers, body, 0.0, query))


@pytest.mark.parametrize(
    "url, public_url, query",
    [
        ("https://example.com/webhook/twilio", "https://example.com", ""),
        ("https://example.com/webhook/twilio", "https://example.com/", ""),
        ("https://example.com/webhook/twilio", "https://example.com:8443", ""),
        ("https://example.com:8443/webhook/twilio", "https://example.com:8443", ""),
        ("https://example.com:443/webhook/twilio", "https://example.com", ""),
        ("http://example.com:80/webhook/twilio", "http://example.com", ""),
        ("https://[::1]:8443/webhook/twilio", "https://[::1]:8443", ""),
        ("https://example.com/in/webhook/twilio", "https://example.com/in", ""),
        ("https://example.com/webhook/twilio?a=1&b=%20x", "https://example.com", "a=1&b=%20x"),
    ],
)
def test_the_address_is_signed_too(url: str, public_url: str, query: str) -> None:
    assert verify(SMS, url, public_url=public_url, query=query) == "current"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/webhook/twilio/",
        "http://example.com/webhook/twilio",
        "https://example.com:8444/webhook/twilio",
        "https://example.com/webhook/twilio?a=1",
    ],
)
def test_another_address_proves_nothing(url: str) -> None:
    assert verify(SMS, url) is None


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([*SMS, ("Empty", "")], id="an empty field"),
        pytest.param([*SMS, ("Twice", "b"), ("Twice", "a"), ("Twice", "b")], id="a repeated field"),
        pytest.param([*SMS, ("a", "x"), ("A", "y"), ("ä", "z")], id="sorted by code points"),
        pytest.param([], id="no field"),
    ],
)
def test_fields_are_signed_sorted_and_each_value_once(fields: list[tuple[str, str]]) -> None:
    assert verify(fields) == "current"


def test_another_value_proves_nothing() -> None:
    assert verify(SMS, body=urlencode([*SMS, ("x", "y")]).encode()) is None


def test_bytes_that_are_no_utf8_are_kept_and_raise_nothing() -> None:
    body = b"MessageSid=SM1&From=%2B1&To=%2B2&Body=%ff&%fe=x"
    found = source().parse(Received({}, body, 0.0))
    assert found.messages[0].text == "\ufffd"
    assert "\\udcfe" in found.payloads[0]
    assert source().verify(Received({"X-Twilio-Signature": "é"}, body, 0.0)) is None


async def test_media_are_in_the_payload(client: Client, post: Post) -> None:
    fields = dict(SMS) | {"NumMedia": "1", "MediaUrl0": "https://api.example.com/1", "Body": ""}
    assert (await post(TWILIO, urlencode(fields).encode())).body == b"<Response/>"
    payload = json.loads((await client.get("/messages/SM1/payload")).body)
    assert payload == fields
    assert json.loads((await client.get("/messages/SM1")).body)["text"] is None


@pytest.mark.parametrize(
    "fields, kind, message_id",
    [
        ({"MessageSid": "SM9", "MessageStatus": "delivered"}, "status.delivered", "SM9"),
        ({"SmsSid": "SM9", "SmsStatus": "sent"}, "status.sent", "SM9"),
        (dict(SMS) | {"MessageStatus": "read"}, "status.read", "SM1"),
        ({"Body": "who?"}, "unknown", None),
    ],
)
async def test_all_else_is_an_event(
    client: Client, post: Post, fields: dict[str, str], kind: str, message_id: str | None
) -> None:
    answer = await post(TWILIO, urlencode(fields).encode())
    assert (answer.code, answer.headers["Content-Type"]) == (200, "text/xml")
    (event,) = json.loads((await client.get("/events")).body)["data"]
    assert (event["kind"], event["message_id"], event["body"]) == (kind, message_id, fields)


@pytest.mark.parametrize(
    "given, kept",
    [("12345", "+12345"), ("TWILIO", "TWILIO"), ("whatsapp:US.1349", "US.1349"), ("+1", "+1")],
)
def test_whoever_writes_is_found(given: str, kept: str) -> None:
    body = urlencode(dict(SMS) | {"From": given}).encode()
    assert source().parse(Received({}, body, 0.0)).messages[0].from_msisdn == kept


def test_the_time_of_receipt_is_the_messages() -> None:
    found = source().parse(Received({}, urlencode(SMS).encode(), 1736935200.9))
    assert found.messages[0].ts == "2025-01-15T10:00:00Z"


def test_a_repeat_at_another_time_has_the_same_payload() -> None:
    body = urlencode(SMS).encode()
    found = [source().parse(Received({}, body, at)).payloads for at in (0.0, 100.0)]
    assert found[0] == found[1]
