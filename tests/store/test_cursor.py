"""Page cursors: whatever comes back is either our own for this listing, or refused."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyftr_server.schema import MAX_MESSAGE_ID, Invalid, MessageQuery
from lyftr_server.store.cursor import Key, Position, decode, encode

KEY = b"k" * 32
QUERY = MessageQuery(sender="+1", since="2025-01-15T10:00:00Z", q="straße")
POSITION = Position(False, Key("2025-01-15T10:00:00.5", "m1"))

characters = st.characters(exclude_categories=["Cs"])
positions = st.builds(
    Position,
    st.booleans(),
    st.builds(Key, st.text(characters), st.text(characters, max_size=MAX_MESSAGE_ID)),
)


def refused(token: str, key: bytes = KEY, query: MessageQuery = QUERY) -> None:
    with pytest.raises(Invalid) as caught:
        decode(key, token, query)
    (fault,) = caught.value.faults
    assert (fault.loc, fault.type) == (("query", "cursor"), "cursor_invalid")


@given(positions)
def test_a_cursor_comes_back_as_it_was(position: Position) -> None:
    token = encode(KEY, position, QUERY)
    assert token.isascii()
    assert decode(KEY, token, QUERY) == position


def test_the_longest_message_id_fits() -> None:
    position = Position(True, Key("9999-12-31T23:59:59.999999999", "😀" * MAX_MESSAGE_ID + "\0"))
    assert decode(KEY, encode(KEY, position, QUERY), QUERY) == position


def test_another_limit_is_the_same_listing() -> None:
    token = encode(KEY, POSITION, QUERY)
    assert decode(KEY, token, replace(QUERY, limit=7, cursor=token)) == POSITION


@pytest.mark.parametrize(
    "changed", [{"sender": None}, {"sender": "+2"}, {"since": None}, {"q": None}, {"q": "strasse"}]
)
def test_other_filters_are_another_listing(changed: dict[str, str | None]) -> None:
    refused(encode(KEY, POSITION, QUERY), query=replace(QUERY, **changed))  # type: ignore[arg-type]


def test_another_databases_cursor_is_refused() -> None:
    refused(encode(KEY, POSITION, QUERY), key=b"l" * 32)


@pytest.mark.parametrize("at", range(0, 119, 7))
def test_a_changed_character_is_refused(at: int) -> None:
    token = encode(KEY, POSITION, QUERY)
    refused(token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :])


@pytest.mark.parametrize("length", range(0, 119, 7))
def test_a_truncated_cursor_is_refused(length: int) -> None:
    refused(encode(KEY, POSITION, QUERY)[:length])


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param(".", id="dot"),
        pytest.param("x" * 1_000_000, id="huge"),
        pytest.param("WzBd." + "é" * 64, id="no ASCII"),
        pytest.param("%%%." + "0" * 64, id="no base64"),
        pytest.param("WzBd." + "\0" * 64, id="nulls"),
    ],
)
def test_junk_is_refused(token: str) -> None:
    refused(token)


@given(st.text(characters))
def test_any_text_is_refused(token: str) -> None:
    refused(token)
