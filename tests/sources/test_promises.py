"""What the contract promises of a delivery holds for every sender."""

import asyncio
import json
from typing import Any

import pytest

from lyftr_server.app import Application
from lyftr_server.store import StoreError

from ..conftest import Client, LogFile
from ..process import samples
from .conftest import Post
from .senders import NATIVE, SENDERS, TWILIO, WHATSAPP, Sender, whatsapp_body, whatsapp_message


async def listed(client: Client, target: str) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = json.loads((await client.get(target)).body)["data"]
    return data


async def deliveries(client: Client, sender: Sender) -> dict[str, float]:
    """Return lyftr_deliveries_total of one source, without the zeros."""
    found = samples((await client.get("/metrics")).body)
    start = 'lyftr_deliveries_total{result="'
    return {
        name.split('"')[1]: count
        for name, count in found.items()
        if name.startswith(start) and f'source="{sender.source}"' in name and count
    }


@pytest.mark.every_database
async def test_a_signed_message_is_stored_once(
    client: Client, post: Post, sender: Sender, log_file: LogFile
) -> None:
    for _ in range(3):
        answer = await post(sender, sender.body("m1", "नमस्ते + & ="))
        assert (answer.code, answer.body) == (200, sender.answer)
    (row,) = await listed(client, "/messages")
    assert (row["message_id"], row["text"]) == ("m1", "नमस्ते + & =")
    assert (row["from"], row["to"]) == ("+919876543210", "+14155550100")
    one = json.loads((await client.get("/messages/m1")).body)
    assert one["source"] == sender.source
    assert await deliveries(client, sender) == {"created": 1, "duplicate": 2}
    line = next(line for line in log_file.read() if line["path"] == sender.route)
    assert (line["message_id"], line["result"], line["dup"]) == ("m1", "created", False)


@pytest.mark.every_database
async def test_of_many_at_once_one_is_created(client: Client, post: Post, sender: Sender) -> None:
    body = sender.body("m1", "Hello")
    answers = await asyncio.gather(*(post(sender, body) for _ in range(20)))
    assert {answer.code for answer in answers} == {200}
    assert await deliveries(client, sender) == {"created": 1, "duplicate": 19}


@pytest.mark.every_database
async def test_other_content_is_a_conflict_that_is_kept_and_the_first_row_stays(
    client: Client, post: Post, sender: Sender
) -> None:
    await post(sender, sender.body("m1", "first"))
    other = sender.body("m1", "other")
    answer = await post(sender, other)
    assert (answer.code, answer.headers["X-Result"]) == (200, "conflict")
    assert [row["text"] for row in await listed(client, "/messages")] == ["first"]
    (refused,) = await listed(client, "/refused")
    assert refused["body"].encode() == other
    assert (refused["source"], refused["result"]) == (sender.source, "conflict")
    assert (refused["message_id"], refused["size"]) == ("m1", len(other))
    assert refused["detail"][0]["type"] == "conflict"


@pytest.mark.every_database
async def test_an_id_is_one_message_whoever_sends_it(client: Client, post: Post) -> None:
    for each in SENDERS:
        await post(each, each.body("m1", "Hello"))
    (row,) = await listed(client, "/messages")
    assert row["ts"] == "2025-01-15T10:00:00Z"
    assert json.loads((await client.get("/messages/m1")).body)["source"] == "native"
    # Our own format was first, so the other's JSON is not this message's.
    assert (await client.get("/messages/m1/payload")).code == 404


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"&" * 100_000])
@pytest.mark.parametrize("headers", ["none", "another body's", "garbage"])
async def test_an_unsigned_body_is_401_before_anything_parses_it(
    client: Client,
    app: Application,
    post: Post,
    sender: Sender,
    body: bytes,
    headers: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = sender.sign(b"a=b" if sender is TWILIO else b"{}")
    if headers == "none":
        given = {}
    elif headers == "garbage":
        given = dict.fromkeys(given, "é,v1,sha256=")
    for each in app._routes._exact[sender.route].senders:
        monkeypatch.setattr(each, "parse", None)
    answer = await post(sender, body, given)
    assert (answer.code, answer.body) == (401, b'{"detail": "invalid signature"}')
    assert await listed(client, "/refused") == []
    (unsigned,) = await listed(client, "/refused/unsigned")
    assert (unsigned["size"], unsigned["route"]) == (len(body), sender.route)
    assert unsigned["reason"] == "invalid_signature"
    assert set(unsigned) == {"at", "request_id", "route", "size", "reason"}


async def test_the_last_hundred_unsigned_bodies_are_remembered(client: Client, post: Post) -> None:
    for size in range(105):
        await post(NATIVE, b"x" * size, {})
    sizes = [row["size"] for row in await listed(client, "/refused/unsigned")]
    assert sizes == list(range(104, 4, -1))


NO_FORM = {"native": b"{}", "standard_webhooks": b"[]", "whatsapp": b'{"a": 1}', "twilio": b""}


@pytest.mark.every_database
async def test_a_signed_body_that_cannot_be_parsed_is_422_and_kept(
    client: Client, post: Post, sender: Sender, log_file: LogFile
) -> None:
    body = NO_FORM[sender.source]
    answer = await post(sender, body)
    detail = json.loads(answer.body)["detail"]
    assert answer.code == 422
    (refused,) = await listed(client, "/refused")
    assert (refused["body"].encode(), refused["detail"]) == (body, detail)
    assert (refused["source"], refused["result"]) == (sender.source, "validation_error")
    assert refused["request_id"] == answer.headers["X-Request-ID"]
    assert await deliveries(client, sender) == {"validation_error": 1}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"entry":' + b"[" * 200_000, id="an open nest"),
        pytest.param(b'{"entry":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="a deep nest"),
        pytest.param(b'{"entry":[' + b",".join([b"1"] * 400_000) + b"]}", id="many parts"),
        pytest.param(b'{"entry":[{"n":' + b"9" * 10_000 + b"}]}", id="a long number"),
        pytest.param(b'{"entry":[NaN]}', id="no number"),
        pytest.param(b'{"entry":[]} x', id="something behind"),
        pytest.param(b'{"entry":[{"changes":[}]}', id="no value"),
        pytest.param(b'{"entry":[1,]}', id="a comma too many"),
        pytest.param(b'{"entry" [1]}', id="no colon"),
        pytest.param(b"{entry: [1]}", id="a bare key"),
        pytest.param(b'{"entry":["\xff"]}', id="no UTF-8"),
        pytest.param(b'\xef\xbb\xbf{"entry":[]}', id="a BOM"),
    ],
)
async def test_a_json_bomb_is_422_and_harmless(client: Client, post: Post, body: bytes) -> None:
    assert (await post(WHATSAPP, body)).code == 422
    (refused,) = await listed(client, "/refused")
    assert refused["size"] == len(body)
    assert (await post(WHATSAPP, WHATSAPP.body("m1", "Hello"))).code == 200


async def test_a_form_of_many_fields_is_401_for_nobody_sends_such(post: Post) -> None:
    body = b"&".join(b"f%d=1" % n for n in range(1001))
    assert (await post(TWILIO, body)).code == 401
    assert (await post(TWILIO, b"a=" + b"x" * (128 << 10))).code == 401


@pytest.mark.parametrize("settings", [{"max_body_bytes": 1000}], indirect=True)
async def test_a_large_body_is_413(post: Post, client: Client, sender: Sender) -> None:
    assert (await post(sender, b"x" * 1001)).code == 413
    # Nobody has looked who signed it: it is the route's first sender's.
    first = next(each for each in SENDERS if each.route == sender.route)
    assert await deliveries(client, first) == {"too_large": 1}
    assert await listed(client, "/refused") == []


async def test_a_refused_body_that_cannot_be_kept_is_503(
    app: Application, post: Post, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise StoreError("full")

    monkeypatch.setattr(app.store, "refuse", fail)
    assert (await post(sender, NO_FORM[sender.source])).code == 503


@pytest.mark.parametrize(
    "settings",
    [
        {
            "standard_webhooks_secrets": (),
            "whatsapp_app_secrets": (),
            "whatsapp_verify_tokens": (),
            "twilio_auth_tokens": (),
        }
    ],
    indirect=True,
)
async def test_without_its_secret_a_route_does_not_exist(
    client: Client, post: Post, sender: Sender
) -> None:
    answer = await post(sender, sender.body("m1", "Hello"))
    assert answer.code == {"native": 200, "standard_webhooks": 401}.get(sender.source, 404)
    if answer.code == 404:
        assert (await client.request("PUT", sender.route, b"")).code == 404


async def test_another_method_is_405(client: Client, sender: Sender) -> None:
    answer = await client.request("PUT", sender.route, b"")
    allowed = "GET, HEAD, POST" if sender is WHATSAPP else "POST"
    assert (answer.code, answer.headers["Allow"]) == (405, allowed)


@pytest.mark.every_database
async def test_a_batch_is_stored_whole_and_once(client: Client, post: Post) -> None:
    messages = [whatsapp_message(f"m{n}", f"text {n}") for n in range(600)]
    statuses = [{"id": f"s{n}", "status": "read", "timestamp": "1"} for n in range(400)]
    body = whatsapp_body(*messages, statuses=statuses)
    first = await post(WHATSAPP, body)
    again = await post(WHATSAPP, body)
    more = [whatsapp_message(f"m{n}", f"text {n}") for n in range(300, 900)]
    half = await post(WHATSAPP, whatsapp_body(*more, statuses=statuses[:10]))
    results = [each.headers["X-Result"] for each in (first, again, half)]
    assert results == ["created", "duplicate", "created"]
    assert json.loads((await client.get("/messages?limit=1")).body)["total"] == 900
    assert len((await client.get("/events.ndjson")).body.splitlines()) == 400
    payload = (await client.get("/messages/m7/payload")).body
    assert payload == json.dumps(messages[7]).encode()


@pytest.mark.every_database
async def test_one_conflict_makes_a_batch_one_and_the_rest_is_stored(
    client: Client, post: Post
) -> None:
    await post(WHATSAPP, WHATSAPP.body("m1", "first"))
    body = whatsapp_body(whatsapp_message("m1", "other"), whatsapp_message("m2", "new"))
    assert (await post(WHATSAPP, body)).headers["X-Result"] == "conflict"
    assert [row["text"] for row in await listed(client, "/messages")] == ["first", "new"]
    (refused,) = await listed(client, "/refused")
    assert refused["body"].encode() == body
