"""Signatures: HMAC-SHA256 over the bytes, compared whatever a header may hold."""

import hashlib
import hmac

import pytest

from lyftr_server.signature import Verifier, matches, sign

BODY = b'{"a": 1}'
GOOD = sign(b"testsecret", BODY)


@pytest.mark.parametrize(
    "key, body, digest",
    [
        # RFC 4231, test cases 1, 2 and 6.
        pytest.param(
            b"\x0b" * 20,
            b"Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            id="RFC 4231, 1",
        ),
        pytest.param(
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            id="RFC 4231, 2",
        ),
        pytest.param(
            b"\xaa" * 131,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            id="RFC 4231, 6: a key longer than a block",
        ),
    ],
)
def test_signatures_are_the_standards(key: bytes, body: bytes, digest: str) -> None:
    assert sign(key, body) == digest
    assert Verifier(key).verify(body, digest)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 128, 1000])
def test_a_key_of_any_length_verifies(length: int) -> None:
    key = bytes(n % 256 for n in range(length))
    assert Verifier(key).verify(BODY, hmac.new(key, BODY, hashlib.sha256).hexdigest())


def test_upper_case_is_fine() -> None:
    assert Verifier(b"testsecret").verify(BODY, GOOD.upper())


def test_the_second_key_verifies_too() -> None:
    verifier = Verifier(b"new", b"testsecret")
    assert verifier.verify(BODY, GOOD)
    assert verifier.verify(BODY, sign(b"new", BODY))
    assert not verifier.verify(BODY, sign(b"other", BODY))


def test_a_verifier_can_be_used_again() -> None:
    verifier = Verifier(b"testsecret")
    assert [verifier.verify(BODY, GOOD) for _ in range(3)] == ["current"] * 3


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("", id="empty"),
        pytest.param("0" * 64, id="another digest"),
        pytest.param(GOOD[:-1] + ("0" if GOOD[-1] != "0" else "1"), id="last digit"),
        pytest.param(GOOD[:-1], id="too short"),
        pytest.param(GOOD + "0", id="too long"),
        pytest.param(GOOD + "\n", id="trailing newline"),
        pytest.param(GOOD * 1000, id="very long"),
        pytest.param("sha256=" + GOOD, id="prefixed"),
        pytest.param(f"{GOOD}, {GOOD}", id="doubled"),
        pytest.param("x" * 64, id="no hexadecimal"),
        pytest.param("é" * 64, id="beyond ASCII"),
        pytest.param("\ud800" * 64, id="surrogates"),
        pytest.param("１" * 64, id="digits of another script"),
    ],
)
def test_anything_else_does_not_verify(given: str) -> None:
    assert not Verifier(b"testsecret").verify(BODY, given)


@pytest.mark.parametrize(
    "body", [b"", BODY + b"\n", BODY.replace(b" ", b"")], ids=["empty", "newline", "reformatted"]
)
def test_another_body_does_not_verify(body: bytes) -> None:
    assert not Verifier(b"testsecret").verify(body, GOOD)


@pytest.mark.parametrize("text", ["token", "", "tökén", "\ud800"])
def test_any_two_strings_can_be_compared(text: str) -> None:
    assert matches(text, text)
    assert not matches(text, text + "x")
