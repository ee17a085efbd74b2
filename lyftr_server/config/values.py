"""What a variable's text means, or what is wrong with it."""

import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import voluptuous as vol

from ..signature import standard_key


def integer(least: int, most: int) -> Callable[[str], int]:
    def validate(value: str) -> int:
        if not re.fullmatch("[0-9]{1,15}", value) or not least <= int(value) <= most:
            raise vol.Invalid(f"must be a whole number from {least} to {most}")
        return int(value)

    return validate


def seconds(value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value):
        raise vol.Invalid("must be a number of seconds, such as 10 or 0.5")
    return float(value)


def days(value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,9})?", value) or not float(value):
        raise vol.Invalid("must be a number of days above 0, such as 90")
    return float(value)


def one_of(*names: str) -> Callable[[str], str]:
    def validate(value: str) -> str:
        if value not in names:
            raise vol.Invalid(f"must be one of {', '.join(names)}")
        return value

    return validate


def log_level(value: str) -> str:
    return one_of("DEBUG", "INFO", "WARNING", "ERROR")(value.upper())


def key(value: str) -> bytes:
    # Bytes that are not UTF-8 come as surrogates in os.environ; they go back as they were.
    return value.encode("utf-8", "surrogateescape")


def key_file(value: str) -> bytes:
    try:
        key = Path(value).read_bytes()
    except OSError as error:
        raise vol.Invalid(f"cannot be read: {error.strerror}") from error
    key = key.removesuffix(b"\n").removesuffix(b"\r")
    if not key:
        raise vol.Invalid("names an empty file")
    return key


def text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise vol.Invalid("must be UTF-8") from None
    return value


def host(value: str) -> str:
    try:
        text(value).encode("idna")
    except UnicodeError:
        raise vol.Invalid(
            "must be an address or a name, each label of at most 63 letters"
        ) from None
    return value


def token(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise vol.Invalid("must be printable ASCII without spaces")
    return value


def database(value: str) -> Path | str:
    """Return the path of an SQLite file, or a PostgreSQL URL as it is."""
    if re.match("postgres(ql)?://", value):
        if not re.fullmatch(r"postgres(ql)?://[^/?#\s]*/[^/?#\s]+(\?\S*)?", value):
            raise vol.Invalid("must be postgresql://user@host/database")
        return value
    form = re.fullmatch(r"sqlite(?:\+aiosqlite)?:///([^?#]+)", text(value))
    if not form or form[1].startswith(":") or form[1].endswith("/"):
        raise vol.Invalid(
            "must be sqlite:///relative/path or sqlite:////absolute/path of a file,"
            " or postgresql://user@host/database"
        )
    return Path(form[1])


def standard_secret(value: str) -> bytes:
    try:
        return standard_key(value)
    except ValueError:
        raise vol.Invalid("must be base64, with or without whsec_ before it") from None


def in_file(validate: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return the validator of a variable that names a file with the value."""

    def validated(value: str) -> Any:
        return validate(key_file(value).decode("utf-8", "surrogateescape"))

    return validated


def public_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", text(value)):
        raise vol.Invalid("must look like https://example.com, without user, query and fragment")
    try:
        _ = urlsplit(value).port
    except ValueError:
        raise vol.Invalid("must have a port from 0 to 65535, or none") from None
    return value.rstrip("/")


def hosts(value: str) -> tuple[str, ...]:
    hosts = tuple(re.split(r"[,\s]+", value.strip(", ").lower()))
    if not all(re.fullmatch(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]", host) for host in hosts):
        raise vol.Invalid("must be names or addresses without ports, with commas between")
    return hosts


def networks(value: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(each) for each in re.split(r"[,\s]+", value.strip(", ")))
    except ValueError:
        raise vol.Invalid("must be addresses or networks, with commas between") from None
