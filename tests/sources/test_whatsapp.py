"""The WhatsApp Cloud API: each kind of Meta's reference, read from samples made by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from lyftr_server.records import Delivery
from lyftr_server.sources import Received
from lyftr_server.sources.whatsapp import WhatsApp

from ..conftest import Client, LogFile
from ..process import ROOT
from .conftest import Post
from .senders import VERIFY_TOKEN, WHATSAPP, whatsapp, whatsapp_body, whatsapp_message

FOLDER = ROOT / "tests" / "data" / "whatsapp"
SAMPLES = sorted(FOLDER.glob("*.json"))
PERSON = "+919876543210"

# sample -> its messages (id, text) and its events (kind, message_id), contacts left out
EXPECTED: dict[str, tuple[list[tuple[str, str | None]], list[tuple[str, str | None]]]] = {
    "text": ([("wamid.text", "Schöne Grüße 🙋🏽 नमस्ते שלום")], []),
    "text_context": ([("wamid.reply", "Yes")], []),
    "image": ([("wamid.image", "Taj Mahal 🕌")], []),
    "image_without_caption": ([("wamid.bare", None)], []),
    "video": ([("wamid.video", "Look")], []),
    "audio": ([("wamid.audio", None)], []),
    "document": ([("wamid.document", "The bill")], []),
    "sticker": ([("wamid.sticker", None)], []),
    "location": ([("wamid.location", "Tāj Mahal")], []),
    "contacts": ([("wamid.contacts", None)], []),
    "button": ([("wamid.button", "Unsubscribe")], []),
    "interactive_button": ([("wamid.button_reply", "Cancel")], []),
    "interactive_list": ([("wamid.list_reply", "Express")], []),
    "interactive_form": ([("wamid.nfm_reply", None)], []),
    "reaction": ([("wamid.reaction", "👍🏽")], []),
    "reaction_taken_back": ([("wamid.unreaction", None)], []),
    "order": ([("wamid.order", "By Friday, please")], []),
    "system": ([("wamid.system", None)], []),
    "unsupported": ([("wamid.unsupported", None)], []),
    "referral": ([("wamid.referral", "Is it available?")], []),
    "edit": ([], [("message.edit", "wamid.text")]),
    "revoke": ([], [("message.revoke", "wamid.text")]),
    "echo": ([], [("message_echo.text", "wamid.echo")]),
    "call": ([], [("call.connect", "wacid.call")]),
    "status_sent": ([], [("status.sent", "wamid.ours")]),
    "status_delivered": ([], [("status.delivered", "wamid.ours")]),
    "status_read": ([], [("status.read", "wamid.ours")]),
    "status_failed": ([], [("status.failed", "wamid.ours")]),
    "statuses_out_of_order": (
        [],
        [(f"status.{name}", "wamid.ours") for name in ("read", "delivered", "sent")],
    ),
    "account_update": ([], [("account_update", None)]),
    "template_status": ([], [("message_template_status_update", None)]),
    "phone_number_quality": ([], [("phone_number_quality_update", None)]),
    "unknown_field": ([], [("weather_update", None)]),
    "errors": ([], [("error", None)]),
    "contacts_apart": ([("wamid.apart", "Hola")], []),
    "user_without_number": ([("wamid.hidden", "You cannot see my number")], []),
    "batch": (
        [("wamid.b1", "one"), ("wamid.b2", "two"), ("wamid.b3", "three")],
        [("status.delivered", "wamid.s1"), ("status.read", "wamid.s2"), ("error", None)],
    ),
    "partly_broken": (
        [("wamid.whole", "whole")],
        [
            ("message.text", None),
            ("message.unknown", None),
            ("message.text", "wamid.odd"),
            ("unknown", None),
        ],
    ),
}


def parse(body: bytes) -> Delivery:
    return WhatsApp([b"key"]).parse(Received({}, body, 0.0))


def test_every_sample_has_its_expectation() -> None:
    assert {path.stem for path in SAMPLES} == set(EXPECTED)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_each_kind_becomes_what_it_is(path: Path) -> None:
    body = path.read_bytes()
    messages, events = EXPECTED[path.stem]
    found = parse(body)
    assert [(each.message_id, each.text) for each in found.messages] == messages
    others = [event for event in found.events if event.kind != "contact"]
    assert [(event.kind, event.message_id) for event in others] == events
    # Whatever is kept is kept byte for byte.
    for text in (*found.payloads, *(event.body for event in found.events)):
        assert text.encode() in body
        json.loads(text)
    for message, payload in zip(found.messages, found.payloads, strict=True):
        assert json.loads(payload)["id"] == message.message_id
        assert (message.to_msisdn, message.ts) == ("+14155550100", "2025-01-15T10:00:00Z")


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
async def test_each_kind_is_found_again_byte_for_byte(
    client: Client, post: Post, path: Path
) -> None:
    body = path.read_bytes()
    for _ in range(2):
        answer = await post(WHATSAPP, body)
        assert (answer.code, answer.body) == (200, b'{"status": "ok"}')
    parsed = parse(body)
    for message, payload in zip(parsed.messages, parsed.payloads, strict=True):
        found = await client.get(f"/messages/{message.message_id}/payload")
        assert (found.code, found.body) == (200, payload.encode())
        assert found.headers["Content-Type"] == "application/json"
    lines = (await client.get("/events.ndjson")).body.splitlines()
    assert len(lines) == len({event.body for event in parsed.events})
    for event in parsed.events:
        assert any(line.endswith(b'"body": ' + event.body.encode() + b"}") for line in lines)


async def test_who_hides_the_number_is_found_by_the_id(client: Client, post: Post) -> None:
    await post(WHATSAPP, (FOLDER / "user_without_number.json").read_bytes())
    found = json.loads((await client.get("/messages?from=US.13491208655302741918")).body)
    assert [row["from"] for row in found["data"]] == ["US.13491208655302741918"]


async def test_statuses_are_found_by_the_message_they_are_about(client: Client, post: Post) -> None:
    for name in ("status_sent", "status_delivered", "status_read", "status_failed", "batch"):
        await post(WHATSAPP, (FOLDER / f"{name}.json").read_bytes())
    found = json.loads((await client.get("/events?message_id=wamid.ours")).body)["data"]
    kinds = [f"status.{name}" for name in ("sent", "delivered", "read", "failed")]
    assert [event["kind"] for event in found] == kinds
    assert found[3]["body"]["errors"][0]["code"] == 131026
    assert {event["source"] for event in found} == {"whatsapp"}


def test_an_update_keeps_when_it_was_and_whose() -> None:
    (event,) = parse((FOLDER / "account_update.json").read_bytes()).events
    assert json.loads(event.body)["time"] == 1739321024


def test_the_own_json_of_several_updates_is_each_ones_change() -> None:
    body = b'{"entry":[{"id":"1","changes":[{"field":"a","value":{"x":1}}, {"value":2}]}]}'
    found = [(event.kind, event.body) for event in parse(body).events]
    assert found == [("a", '{"field":"a","value":{"x":1}}'), ("unknown", '{"value":2}')]


@pytest.mark.parametrize(
    "body, kinds",
    [
        pytest.param(b'{"entry":[]}', [], id="nothing"),
        pytest.param(b'{"entry":[null]}', ["unknown"], id="no entry"),
        pytest.param(b'{"entry":[{}]}', ["unknown"], id="no changes"),
        pytest.param(b'{"entry":[{"changes":7}]}', ["unknown"], id="changes that are none"),
        pytest.param(b'{"entry":[{"changes":[7]}]}', ["unknown"], id="a change that is none"),
        pytest.param(
            b'{"entry":[{"changes":[{"field":"messages","value":7}]}]}', ["messages"], id="no value"
        ),
        pytest.param(
            b'{"entry":[{"changes":[{"field":"messages","value":{"messages":{}}}]}]}',
            ["messages"],
            id="messages that are no list",
        ),
        pytest.param(b' \n{ "entry" : [ { "changes" : [ 7 ] } ] } \r\n', ["unknown"], id="spaces"),
    ],
)
def test_odd_shapes_are_kept_as_events(body: bytes, kinds: list[str]) -> None:
    assert [event.kind for event in parse(body).events] == kinds


@pytest.mark.parametrize(
    "change, becomes",
    [
        pytest.param({"id": "x" * 256}, "message", id="longest id"),
        pytest.param({"id": "x" * 257}, "event", id="id too long"),
        pytest.param({"id": "\ud800"}, "event", id="id a lone surrogate"),
        pytest.param({"id": "a\0"}, "event", id="id with NUL"),
        pytest.param({"id": 7}, "event", id="id a number"),
        pytest.param({"from": "+919876543210"}, "message", id="from with a plus"),
        pytest.param({"from": None}, "event", id="nobody"),
        pytest.param({"timestamp": 1736935200}, "message", id="a number as time"),
        pytest.param({"timestamp": True}, "event", id="a boolean as time"),
        pytest.param({"timestamp": "-1"}, "event", id="a time before 1970"),
        pytest.param({"timestamp": "253402300800"}, "event", id="a time after 9999"),
        pytest.param({"type": None}, "message", id="no type"),
        pytest.param({"text": "Hello"}, "message", id="text no object"),
        pytest.param({"text": {"body": ["Hello"]}}, "message", id="text a list"),
        pytest.param({"new": {"deep": [[[]]]}}, "message", id="a field that nobody knows"),
    ],
)
def test_what_a_message_needs_decides_and_nothing_else(
    change: dict[str, Any], becomes: str
) -> None:
    body = whatsapp_body(whatsapp_message("m1", "Hello") | change)
    found = parse(body)
    assert (len(found.messages), len(found.events)) == ((1, 0) if becomes == "message" else (0, 1))


@pytest.mark.parametrize(
    "given, kept",
    [
        pytest.param("x" * 4097, "x" * 4096, id="too long"),
        pytest.param("😀" * 4097, "😀" * 4096, id="too long, outside the BMP"),
        pytest.param("a\0b\ud800", "a\ufffdb\ufffd", id="what no database holds"),
    ],
)
def test_only_the_column_is_cut(given: str, kept: str) -> None:
    found = parse(whatsapp_body(whatsapp_message("m1", given)))
    assert found.messages[0].text == kept
    assert json.loads(found.payloads[0])["text"]["body"] == given


# -- the set-up call

QUERY = f"hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={VERIFY_TOKEN}"


async def test_the_challenge_is_answered_as_plain_text(client: Client, log_file: LogFile) -> None:
    answer = await client.get(f"/webhook/whatsapp?{QUERY}")
    assert (answer.code, answer.body) == (200, b"1158201444")
    assert answer.headers["Content-Type"] == "text/plain"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert VERIFY_TOKEN not in log_file.text()


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("", id="nothing"),
        pytest.param(QUERY.replace("subscribe", "unsubscribe"), id="another mode"),
        pytest.param(QUERY + "x", id="another token"),
        pytest.param(QUERY + "%ff", id="a token that is no UTF-8"),
        pytest.param(QUERY.replace("1158201444", "%3Cscript%3E"), id="a challenge with markup"),
        pytest.param(QUERY.replace("1158201444", "1" * 257), id="a long challenge"),
        pytest.param(QUERY.replace("1158201444", ""), id="no challenge"),
        pytest.param(QUERY.replace("1158201444", "1%0A"), id="a challenge with a line end"),
        pytest.param(f"{QUERY}&hub.verify_token=x", id="two tokens"),
    ],
)
async def test_anything_else_is_403(client: Client, log_file: LogFile, query: str) -> None:
    answer = await client.get(f"/webhook/whatsapp?{query}")
    assert (answer.code, list(json.loads(answer.body))) == (403, ["detail"])
    assert VERIFY_TOKEN not in log_file.text()


@pytest.mark.parametrize(
    "settings, get, post_",
    [
        pytest.param({"whatsapp_verify_tokens": ()}, 404, 200, id="no verify token"),
        pytest.param({"whatsapp_app_secrets": ()}, 200, 404, id="no app secret"),
        pytest.param({"whatsapp_app_secrets": (b"new", b"app-secret")}, 200, 200, id="previous"),
    ],
    indirect=["settings"],
)
async def test_each_half_of_the_route_has_its_own_secret(
    client: Client, post: Post, get: int, post_: int
) -> None:
    assert (await client.get(f"/webhook/whatsapp?{QUERY}")).code == get
    assert (await post(WHATSAPP, WHATSAPP.body("m1", "Hello"))).code == post_


@pytest.mark.parametrize("prefix", ["", "sha1=", "SHA256=", "sha256=sha256=", " "])
async def test_another_prefix_proves_nothing(post: Post, prefix: str) -> None:
    body = WHATSAPP.body("m1", "Hello")
    signature = whatsapp(body)["X-Hub-Signature-256"].removeprefix("sha256=")
    answer = await post(WHATSAPP, body, {"X-Hub-Signature-256": prefix + signature})
    assert answer.code == 401
