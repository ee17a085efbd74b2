"""HMAC-SHA256 signatures over raw bytes (RFC 2104). Knows neither HTTP nor the store."""

import binascii
import hmac
import re
from base64 import b64decode, b64encode
from hashlib import sha256

_HEX_DIGEST = re.compile("[0-9a-fA-F]{64}")
_BLOCK_BYTES = 64
_PREFIX = "whsec_"


def sign(secret: bytes, body: bytes) -> str:
    """Return the signature of `body` as 64 lower-case hexadecimal digits."""
    return hmac.new(secret, body, sha256).hexdigest()


def sign_standard(secret: bytes, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return a webhook-signature (Standard Webhooks 1.0.0) with one entry."""
    signed = f"{webhook_id}.{timestamp}.".encode("latin-1", "replace") + body
    return "v1," + b64encode(hmac.new(secret, signed, sha256).digest()).decode()


def standard_key(secret: str) -> bytes:
    """Return the key in a secret of Standard Webhooks: base64, with or without `whsec_`.

    ValueError when it is none. Padding may be left out.
    """
    text = secret.removeprefix(_PREFIX).rstrip("=")
    try:
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("no base64") from error
    if not key:
        raise ValueError("empty")
    return key


def matches(expected: str, given: str) -> bool:
    """Compare two strings in constant time, whatever characters they hold."""
    # On str, compare_digest raises TypeError for anything but ASCII.
    return hmac.compare_digest(
        expected.encode("utf-8", "surrogatepass"), given.encode("utf-8", "surrogatepass")
    )


class Verifier:
    """Checks signatures made with any of the given secrets."""

    def __init__(self, *secrets: bytes) -> None:
        self._keyed = [_Keyed(secret) for secret in secrets]

    def verify(self, body: bytes, signature: str) -> bool:
        """Tell whether `signature` is 64 hexadecimal digits, of either case, that sign `body`."""
        if not _HEX_DIGEST.fullmatch(signature):
            return False
        given = bytes.fromhex(signature)
        return any(hmac.compare_digest(keyed.digest(body), given) for keyed in self._keyed)


class _Keyed:
    """HMAC-SHA256 under one key, hashed into the two states once: 0.9 us a body, hmac.new 1.7."""

    def __init__(self, key: bytes) -> None:
        if len(key) > _BLOCK_BYTES:
            key = sha256(key).digest()
        block = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in block))

    def digest(self, body: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(body)
        outer.update(inner.digest())
        return outer.digest()
