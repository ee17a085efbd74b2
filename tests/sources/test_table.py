"""A sender is one file and one row: a pretended one shows that nothing else knows of it."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from lyftr_server.app import Application
from lyftr_server.config import Config
from lyftr_server.openapi import document
from lyftr_server.records import Delivery, Message
from lyftr_server.schema import Fault, Invalid
from lyftr_server.signature import matches
from lyftr_server.sources import SOURCES, Field, Received, Source, routes, sources_of
from lyftr_server.store import MessageStore

from ..conftest import Client, LogFile
from ..process import SECRET, samples


class Pretended(Source):
    """Sends one line: an id and a text. Its proof is a password."""

    name = "pretended"
    route = "/webhook/pretended"
    operation = "receivePretended"
    sender = "nobody"
    about = "A line with an id and a text."
    proof = (Field("X-Password", "The password.", "^.+$"),)
    media_type = "text/plain"
    example = "p1 Hello"
    variable = "WEBHOOK_SECRET"
    answer = b"thanks"
    answer_type = "text/plain"

    @classmethod
    def of(cls, config: Config) -> "Pretended":
        return cls()

    @classmethod
    def sign(cls, key: bytes, body: bytes, url: str, at: float) -> dict[str, str]:
        return {"X-Password": "open sesame"}

    def verify(self, received: Received) -> str | None:
        fits = matches("open sesame", received.headers.get("X-Password", ""))
        return "current" if fits else None

    def parse(self, received: Received) -> Delivery:
        message_id, space, text = received.body.decode().partition(" ")
        if not space:
            raise Invalid(Fault(("body",), "must be an id and a text", "value_error"))
        message = Message(message_id, "+1", "+2", "2025-01-15T10:00:00Z", text)
        return Delivery(self.name, (message,), (json.dumps([message_id, text]),))


TABLE: Sequence[type[Source]] = (*SOURCES, Pretended)
RIGHT = Pretended.sign(b"", b"", "", 0)


@pytest.fixture
def app(settings: Config, store: MessageStore, log_file: LogFile) -> Application:
    return Application(settings, store, log_file.lines, TABLE)


async def test_one_row_brings_all_that_a_sender_needs(client: Client, log_file: LogFile) -> None:
    async def post(body: bytes, headers: dict[str, str] = RIGHT) -> tuple[int, bytes]:
        answer = await client.request("POST", Pretended.route, body, headers)
        return answer.code, answer.body

    assert await post(b"p1 Hello") == (200, b"thanks")
    assert await post(b"p1 Hello") == (200, b"thanks")
    assert (await post(b"p1 Hello", {}))[0] == 401
    assert (await post(b"p2"))[0] == 422
    assert (await client.get(Pretended.route)).code == 405
    assert json.loads((await client.get("/messages/p1")).body)["source"] == "pretended"
    assert (await client.get("/messages/p1/payload")).body == b'["p1", "Hello"]'
    refused = json.loads((await client.get("/refused?source=pretended")).body)["data"]
    assert [row["body"] for row in refused] == ["p2"]
    found = samples((await client.get("/metrics")).body)
    results = ("created", "duplicate", "invalid_signature", "validation_error", "conflict")
    key = 'lyftr_deliveries_total{{result="{}",source="pretended"}}'
    other = 'lyftr_deliveries_total{{source="pretended",result="{}"}}'
    counts = [found.get(key.format(name), found.get(other.format(name))) for name in results]
    assert counts == [1, 1, 1, 1, 0]
    lines = [line for line in log_file.read() if line["path"] == Pretended.route]
    assert [line.get("result") for line in lines] == [*results[:4], None]
    page = json.loads((await client.get("/openapi.json")).body)
    assert list(page["paths"][Pretended.route]) == ["post"]
    assert page == document(TABLE)


def test_a_name_and_a_route_belong_together() -> None:
    assert len({kind.name for kind in SOURCES}) == len(SOURCES)
    assert list(routes()) == ["/webhook", "/webhook/whatsapp", "/webhook/twilio"]


def test_without_secrets_our_own_format_is_left() -> None:
    found = sources_of(Config(secrets=(SECRET.encode(),), database=Path("x")))
    assert {route: [each.name for each in row] for route, row in found.items()} == {
        "/webhook": ["native"]
    }


def test_nothing_but_its_own_file_and_the_table_knows_a_sender() -> None:
    package = Path(__file__).parents[2] / "lyftr_server"
    own = {"native": "native.py", "whatsapp": "whatsapp.py", "twilio": "twilio.py"}
    allowed = {"records.py", "openapi/messages.py", "openapi/kept.py"}  # a name, and examples
    naming = {
        (name, str(path.relative_to(package)))
        for path in package.rglob("*.py")
        for name in own
        if f'"{name}"' in path.read_text() and path.name != own[name]
    }
    assert {file for _, file in naming} <= allowed | {"commands/send.py"}, naming
