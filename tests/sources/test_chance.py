"""Whatever a signed body holds: it is stored, kept or refused, and nothing of it is changed."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lyftr_server.records import Delivery
from lyftr_server.schema import Invalid
from lyftr_server.sources import Received, Source
from lyftr_server.sources.twilio import Twilio
from lyftr_server.sources.whatsapp import WhatsApp

from .senders import AUTH_TOKEN, whatsapp_message

SOURCES: list[Source] = [WhatsApp([b"k"], ["t"]), Twilio("https://a", AUTH_TOKEN.encode())]
QUICK = settings(max_examples=300, deadline=None)
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
MESSAGES = st.dictionaries(
    st.sampled_from(["id", "from", "timestamp", "type", "text", "from_user_id", "x"]), VALUES
).map(lambda change: whatsapp_message("m1", "Hello") | change)
LISTS = st.sampled_from(["messages", "statuses", "contacts", "calls", "errors", "message_echoes"])
CHANGES = st.fixed_dictionaries(
    {"field": st.just("messages") | VALUES},
    optional={"value": st.dictionaries(LISTS, st.lists(MESSAGES | VALUES, max_size=3)) | VALUES},
)
BODIES = st.fixed_dictionaries(
    {"entry": st.lists(VALUES | st.fixed_dictionaries({"changes": st.lists(CHANGES | VALUES)}))}
)


def holds(found: Delivery, text: str) -> None:
    """Hold that what was found fits the columns, and that what is kept is a part of the body."""
    assert len(found.payloads) == len(found.messages)
    for message in found.messages:
        for column in message:
            (column or "").encode()
            assert "\0" not in (column or "")
        assert 1 <= len(message.message_id) <= 256
        assert len(message.text or "") <= 4096
    for kept in (*found.payloads, *(event.body for event in found.events)):
        json.loads(kept)
        assert kept in text
    for event in found.events:
        f"{event.kind}{event.message_id}".encode()


@pytest.mark.slow
@QUICK
@given(body=BODIES, indent=st.sampled_from([None, 0, 2]), ascii_=st.booleans())
def test_any_batch_is_taken_apart_without_a_scratch(body: Any, indent: Any, ascii_: bool) -> None:
    text = json.dumps(body, indent=indent, ensure_ascii=ascii_)
    try:
        found = SOURCES[0].parse(Received({}, text.encode("utf-8", "replace"), 0.0))
    except Invalid:
        assert "NaN" in text or "Infinity" in text
        return
    holds(found, text.encode("utf-8", "replace").decode())


@QUICK
@given(body=st.binary(max_size=200) | st.text(max_size=200).map(str.encode), query=st.text())
def test_any_bytes_prove_nothing_and_raise_nothing_but_invalid(body: bytes, query: str) -> None:
    for source in SOURCES:
        headers = {header.name: "sha256=0" for header in source.proof}
        assert source.verify(Received(headers, body, 0.0, query)) is None
        with contextlib.suppress(Invalid):
            source.parse(Received({}, body, 0.0))
