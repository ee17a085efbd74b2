"""Every sender against the real process: send --as, kill -9, the log, and the disk."""

import json
from pathlib import Path

import pytest

from ..commands.running import run
from ..conftest import ServerFactory
from ..process import SECRET, RunningServer
from .senders import NATIVE, SENDERS, TWILIO, VARIABLES, WHATSAPP, Sender

NEEDLE = "needle-7f3a"


def post(server: RunningServer, sender: Sender, body: bytes, signed: bool = True):  # type: ignore[no-untyped-def]
    headers = sender.sign(body) if signed else {}
    return server.request("POST", sender.route, body, headers)


@pytest.fixture
def open_to_all(server_factory: ServerFactory) -> RunningServer:
    return server_factory(**VARIABLES)


@pytest.mark.parametrize("name, sender", [(s.source.partition("_")[0], s) for s in SENDERS])
def test_send_signs_as_each_of_them(
    tmp_path: Path, open_to_all: RunningServer, name: str, sender: Sender
) -> None:
    lines = b"".join(sender.body(f"m{n}", "Hello") + b"\n" for n in range(5))
    variables = {"WEBHOOK_SECRET": SECRET} | VARIABLES
    ended = run(
        tmp_path, "send", "--as", name, "-", "--url", open_to_all.url, stdin=lines, **variables
    )
    assert ended == (0, "created 5, duplicate 0, conflict 0, refused 0\n", "")
    one = open_to_all.get("/messages/m3").json()
    assert (one["source"], one["text"]) == (sender.source, "Hello")


def test_send_names_the_key_that_is_missing(tmp_path: Path) -> None:
    ended = run(tmp_path, "send", "--as", "whatsapp", "-", WEBHOOK_SECRET=SECRET)
    assert ended.status == 2
    assert "WHATSAPP_APP_SECRET" in ended.stderr


def test_what_was_acknowledged_survives_a_kill(server_factory: ServerFactory) -> None:
    server = server_factory(**VARIABLES)
    for sender in SENDERS:
        assert post(server, sender, sender.body(f"m-{sender.source}", "Hello")).status == 200
        assert post(server, sender, sender.body(f"m-{sender.source}", "other")).status == 200
    status = json.dumps({"entry": [{"changes": [{"field": "account_update"}]}]}).encode()
    assert post(server, WHATSAPP, status).status == 200
    assert post(server, NATIVE, b"{}").status == 422
    server.kill()
    again = server_factory(server.folder, **VARIABLES)
    assert again.get("/messages").json()["total"] == len(SENDERS)
    assert len(again.get("/events").json()["data"]) == 1
    results = [row["result"] for row in again.get("/refused").json()["data"]]
    assert results == ["validation_error", *["conflict"] * len(SENDERS)]
    assert again.get("/messages/m-whatsapp/payload").status == 200
    assert again.get("/messages/m-twilio").json()["source"] == "twilio"


def test_what_is_repaired_is_stored(tmp_path: Path, open_to_all: RunningServer) -> None:
    broken = {"message_id": "r1", "from": "+1", "ts": "2025-01-15T10:00:00Z"}
    assert open_to_all.deliver(broken).status == 422
    (line,) = open_to_all.get("/refused.ndjson?result=validation_error").body.splitlines()
    mended = json.loads(json.loads(line)["body"]) | {"to": "+2"}
    body = json.dumps(mended).encode()
    ended = run(tmp_path, "send", "-", "--url", open_to_all.url, stdin=body, WEBHOOK_SECRET=SECRET)
    assert ended.stdout.startswith("created 1,")
    assert open_to_all.get("/messages/r1").json()["to"] == "+2"


def test_an_unsigned_body_never_reaches_the_disk(open_to_all: RunningServer) -> None:
    for sender in SENDERS:
        for _ in range(20):
            assert post(open_to_all, sender, NEEDLE.encode() * 50, signed=False).status == 401
        assert post(open_to_all, sender, sender.body(sender.source, "Hello")).status == 200
    kept = b"".join(path.read_bytes() for path in open_to_all.folder.iterdir())
    assert NEEDLE.encode() not in kept
    assert len(open_to_all.get("/refused/unsigned").json()["data"]) == 80


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_nothing_of_a_body_or_a_token_is_in_the_log(
    server_factory: ServerFactory, level: str
) -> None:
    open_to_all = server_factory(**VARIABLES, LOG_LEVEL=level)
    token = VARIABLES["WHATSAPP_VERIFY_TOKEN"]
    for sender in SENDERS:
        for text in (NEEDLE, f"{NEEDLE} again"):
            post(open_to_all, sender, sender.body(f"m-{sender.source}", text))
        post(open_to_all, sender, b'{"%b": 1}' % NEEDLE.encode())
        post(open_to_all, sender, f"{NEEDLE}={NEEDLE}".encode(), signed=False)
    query = f"hub.mode=subscribe&hub.challenge=1&hub.verify_token={token}"
    assert open_to_all.get(f"/webhook/whatsapp?{query}").status == 200
    assert open_to_all.get(f"/webhook/whatsapp?{query}x").status == 403
    open_to_all.get(f"/events?kind={NEEDLE}")
    open_to_all.get(f"/refused?source={NEEDLE}&cursor={NEEDLE}")
    open_to_all.stop()
    text = open_to_all.text()
    for private in (NEEDLE, token, "919876543210", "14155550100", "hooks.example"):
        assert private not in text, private
    assert {line["result"] for line in open_to_all.requests(TWILIO.route)} >= {
        "created",
        "conflict",
        "invalid_signature",
    }
