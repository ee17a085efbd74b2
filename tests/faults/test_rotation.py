"""A change of keys refuses nobody who signs rightly; reads stay behind their token."""

import time

import pytest

from lyftr_server import signature
from lyftr_server.signature import sign

from ..conftest import ServerFactory
from ..process import Answer, RunningServer, as_body, message, samples
from .clients import Senders, check_answers, check_database, messages

OLD, NEW = "the old key", "the new key"
TOKEN = "a-read-token"


@pytest.mark.slow
def test_a_change_of_keys_refuses_no_signed_delivery(
    database: dict[str, str], server_factory: ServerFactory
) -> None:
    server = server_factory(secret=OLD, **database)
    with Senders(server, messages("rotated"), connections=6) as senders:
        senders.wait_for(50)
        for secret, previous, used in (
            (NEW, OLD, [OLD]),  # first the server, which knows both from now on,
            (NEW, OLD, [OLD, NEW]),  # then the senders, one by one,
            (NEW, OLD, [NEW]),
            (NEW, "", [NEW]),  # and the old key goes when nobody uses it any more
        ):
            server.stop()
            keys = {"secret": secret, "WEBHOOK_SECRET_PREVIOUS": previous}
            server = server_factory(server.folder, **keys, **database)
            senders.port = server.port
            senders.wait_for(len(senders.acknowledged) + 50)
            senders.secrets = used
            senders.wait_for(len(senders.acknowledged) + 50)
            time.sleep(0.05)
            found = samples(server.get("/metrics").body)
            assert found['webhook_requests_total{result="invalid_signature"}'] == 0
    assert senders.answers.keys() <= {200, 503}
    rows = check_database(server.place, senders.acknowledged, senders.attempted)
    check_answers(server, rows)
    # Now the old key is nobody's.
    body = as_body(message("late"))
    assert server.deliver(body, sign(OLD.encode(), body)).status == 401


def test_a_previous_key_is_a_second_key_and_no_more(server_factory: ServerFactory) -> None:
    server = server_factory(secret=NEW, WEBHOOK_SECRET_PREVIOUS=OLD)
    body = as_body(message())
    assert server.deliver(body, sign(OLD.encode(), body)).status == 200
    assert server.deliver(body, sign(NEW.encode(), body)).status == 200
    for key in (b"", b"another", OLD.encode() + NEW.encode()):
        assert server.deliver(body, sign(key, body)).status == 401


# -- reads

PRIVATE = ("/messages", "/messages?q=hello", "/messages/m1", "/messages.ndjson", "/stats")


def is_private(answer: Answer) -> bool:
    return (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == (
        "no-store",
        "nosniff",
    )


@pytest.fixture
def guarded(server_factory: ServerFactory) -> RunningServer:
    server = server_factory(READ_TOKEN=TOKEN)
    assert server.deliver(message("m1")).status == 200
    return server


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reads_need_the_token(method: str, guarded: RunningServer) -> None:
    wrong = [
        {},
        *(
            {"Authorization": value}
            for value in (
                "",
                TOKEN,
                "Bearer",
                "Bearer ",
                f"Bearer {TOKEN}x",
                f"Bearer {TOKEN[:-1]}",
                f"Basic {TOKEN}",
                f"Bearer {TOKEN} {TOKEN}",
                f"Bearer \xe4{TOKEN}",
            )
        ),
    ]
    for path in PRIVATE:
        for headers in wrong:
            answer = guarded.request(method, path, headers=headers)
            assert answer.status == 401, (path, headers)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert is_private(answer)
            assert b"Hello" not in answer.body
        answer = guarded.request(method, path, headers={"Authorization": f"Bearer {TOKEN}"})
        assert (answer.status, is_private(answer)) == (200, True), path
        assert answer.headers["WWW-Authenticate"] is None


def test_what_is_no_message_needs_no_token(guarded: RunningServer) -> None:
    for path in ("/", "/health", "/health/live", "/health/ready", "/metrics", "/openapi.json"):
        assert guarded.get(path).status == 200
    assert TOKEN not in guarded.text()


def test_answers_with_messages_are_kept_by_nobody(server: RunningServer) -> None:
    assert server.deliver(message("m1")).status == 200
    for path in (*PRIVATE, "/messages/none"):
        assert is_private(server.get(path)), path


# -- in constant time


def test_signatures_and_tokens_are_compared_by_compare_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No test can time it; what decides is seen by taking it over."""
    body = b"{}"
    verifier = signature.Verifier(b"key")
    good = signature.sign(b"key", body)
    assert verifier.verify(body, good)
    assert signature.matches(TOKEN, TOKEN)
    monkeypatch.setattr(signature.hmac, "compare_digest", lambda one, other: False)
    assert not verifier.verify(body, good)
    assert not signature.matches(TOKEN, TOKEN)
    monkeypatch.setattr(signature.hmac, "compare_digest", lambda one, other: True)
    assert verifier.verify(body, "0" * 64)
    assert signature.matches(TOKEN, "another")
