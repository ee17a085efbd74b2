"""lyftr-server sign."""

import hmac
from pathlib import Path

import pytest

from .running import run

BODY = '{"message_id": "m1", "text": "Straße 👍"}'.encode()


def signature(key: bytes, body: bytes) -> str:
    return hmac.digest(key, body, "sha256").hex() + "\n"


def test_a_body_on_standard_input_is_signed_with_the_servers_key(tmp_path: Path) -> None:
    ended = run(tmp_path, "sign", stdin=BODY, WEBHOOK_SECRET="testsecret")
    assert ended == (0, signature(b"testsecret", BODY), "")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(BODY + b"\n", id="newline at the end"),
        pytest.param(b"\xff\x00\r\n", id="no text"),
    ],
)
def test_a_body_is_signed_byte_for_byte(tmp_path: Path, body: bytes) -> None:
    assert run(tmp_path, "sign", "key", stdin=body).stdout == signature(b"key", body)


def test_a_body_may_be_an_argument(tmp_path: Path) -> None:
    assert run(tmp_path, "sign", "--body", BODY.decode(), "key").stdout == signature(b"key", BODY)


def test_a_key_on_the_command_line_wins(tmp_path: Path) -> None:
    ended = run(tmp_path, "sign", "schlüssel", stdin=BODY, WEBHOOK_SECRET="testsecret")
    assert ended.stdout == signature("schlüssel".encode(), BODY)


def test_a_key_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"from a file\n")
    ended = run(tmp_path, "sign", stdin=BODY, WEBHOOK_SECRET_FILE="key")
    assert ended.stdout == signature(b"from a file", BODY)


def test_without_a_key_the_variable_is_named(tmp_path: Path) -> None:
    ended = run(tmp_path, "sign", stdin=BODY)
    assert (ended.status, ended.stdout) == (2, "")
    assert "WEBHOOK_SECRET" in ended.stderr
