"""DELETE: who may erase, what is answered, and what nobody learns of it."""

import json
from urllib.parse import quote

import pytest

from lyftr_server.records import Delivery, Event, Message
from lyftr_server.store import MessageStore

from .conftest import Client, LogFile
from .process import message, native

pytestmark = pytest.mark.every_database

ADMIN = pytest.mark.parametrize(
    "settings", [{"admin_token": "admin-token-1", "read_token": "read-token-1"}], indirect=True
)
BEARER = {"Authorization": "Bearer admin-token-1"}
NUMBER = "+919876543210"
TARGETS = [f"/people/{NUMBER}", "/messages/m1"]


@ADMIN
@pytest.mark.parametrize("number", [NUMBER, NUMBER[1:], "%2B" + NUMBER[1:]])
async def test_a_person_is_erased(
    client: Client, store: MessageStore, log_file: LogFile, number: str
) -> None:
    await client.deliver(message("m1"))
    await client.deliver(message("m2", from_="+1", to=NUMBER))
    await client.deliver(message("m3", from_="+1", to="+2"))
    wanted = {"messages": 2, "events": 0, "refused": 0}
    answer = await client.get(f"/people/{number}", BEARER)
    assert (answer.code, json.loads(answer.body)) == (200, wanted)
    answer = await client.request("DELETE", f"/people/{number}", None, BEARER)
    assert (answer.code, json.loads(answer.body)) == (200, wanted)
    assert await store.total() == 1
    (line,) = [line for line in log_file.read() if line["path"].startswith("/people")][-1:]
    assert line["status"] == 200
    assert NUMBER[1:] not in log_file.text()
    answer = await client.get(f"/people/{number}", BEARER)
    assert sum(json.loads(answer.body).values()) == 0


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        pytest.param({"admin_token": "admin-token-1"}, "GET, HEAD, DELETE", id="admin"),
        pytest.param({}, "GET, HEAD", id="no admin"),
    ],
    indirect=["settings"],
)
async def test_a_method_that_is_not_there_is_not_offered(client: Client, allowed: str) -> None:
    answer = await client.request("PUT", "/messages/m1", b"")
    assert (answer.code, answer.headers["Allow"]) == (405, allowed)


@ADMIN
@pytest.mark.parametrize("name", ["client:anna", "ACME Shop", "US.13491208655302741918"])
async def test_a_person_without_a_number_is_erased(
    client: Client, store: MessageStore, name: str
) -> None:
    await store.insert(native(Message("m1", name, "+1", "2025-01-15T10:00:00Z", "Hello")))
    answer = await client.request("DELETE", f"/people/{quote(name)}", None, BEARER)
    assert (answer.code, json.loads(answer.body)["messages"]) == (200, 1)
    assert await store.total() == 0


@ADMIN
async def test_a_message_is_erased_and_does_not_come_back(client: Client) -> None:
    await client.deliver(message("m1"))
    answer = await client.request("DELETE", "/messages/m1", None, BEARER)
    assert json.loads(answer.body) == {"messages": 1, "events": 0, "refused": 0}
    again = await client.deliver(message("m1"))
    assert (again.code, again.headers["X-Result"]) == (200, "duplicate")
    answer = await client.request("DELETE", "/messages/m1", None, BEARER)
    assert answer.code == 404


@ADMIN
async def test_what_tells_of_a_message_that_is_gone_is_erased_by_its_id(
    client: Client, store: MessageStore
) -> None:
    event = Event("status.read", "m1", '{"id": "m1", "recipient_id": "919876543210"}')
    await store.insert(Delivery("whatsapp", events=(event,)))
    answer = await client.request("DELETE", "/messages/m1", None, BEARER)
    assert (answer.code, json.loads(answer.body)["events"]) == (200, 1)
    answer = await client.request("DELETE", "/messages/m1", None, BEARER)
    assert answer.code == 404


@ADMIN
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "given",
    [
        None,
        "Bearer read-token-1",
        "Bearer admin-token-",
        "Bearer admin-token-1x",
        "Basic admin-token-1",
        "admin-token-1",
        "Bearer \u00fc",
    ],
)
async def test_nobody_else_may(
    client: Client, store: MessageStore, target: str, given: str | None
) -> None:
    await client.deliver(message("m1"))
    headers = {"Authorization": given} if given else {}
    answer = await client.request("DELETE", target, None, headers)
    assert answer.code == 401
    assert await store.total() == 1
    exposition = (await client.get("/metrics")).body.decode()
    assert 'lyftr_tokens_refused_total{token="admin"} 1.0' in exposition


@ADMIN
@pytest.mark.parametrize("target", ["/messages", "/stats", "/messages/m1"])
async def test_the_admins_token_opens_nothing_else(client: Client, target: str) -> None:
    assert (await client.get(target, BEARER)).code == 401


@pytest.mark.parametrize("target", TARGETS)
async def test_without_a_token_there_is_no_erasing(
    client: Client, store: MessageStore, target: str
) -> None:
    await client.deliver(message("m1"))
    assert (await client.request("DELETE", target, None, BEARER)).code == 404
    assert await store.total() == 1


@ADMIN
@pytest.mark.parametrize("number", ["x", "+", "%20", "++1", "1" * 33, "+91%0a", "9876x", "a%00b"])
async def test_what_is_no_number_is_refused(client: Client, number: str) -> None:
    answer = await client.request("DELETE", f"/people/{number}", None, BEARER)
    assert answer.code == 422


@ADMIN
async def test_a_parameter_is_refused_before_anything_goes(
    client: Client, store: MessageStore
) -> None:
    await client.deliver(message("m1"))
    target = f"/people/{NUMBER}?dry_run=1"
    assert (await client.request("DELETE", target, None, BEARER)).code == 422
    assert await store.total() == 1
