"""The configuration: environment variables, and a .env file for those that are not set."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import voluptuous as vol
from dotenv import dotenv_values

from .signature import standard_key


class ConfigError(Exception):
    """The configuration is unusable; `faults` maps each bad variable to what it must be."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name} {fault}" for name, fault in faults.items()))
        self.faults = dict(faults)


def _integer(least: int, most: int) -> Callable[[str], int]:
    def validate(value: str) -> int:
        if not re.fullmatch("[0-9]{1,15}", value) or not least <= int(value) <= most:
            raise vol.Invalid(f"must be a whole number from {least} to {most}")
        return int(value)

    return validate


def _seconds(value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value):
        raise vol.Invalid("must be a number of seconds, such as 10 or 0.5")
    return float(value)


def _days(value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,9})?", value) or not float(value):
        raise vol.Invalid("must be a number of days above 0, such as 90")
    return float(value)


def _one_of(*names: str) -> Callable[[str], str]:
    def validate(value: str) -> str:
        if value not in names:
            raise vol.Invalid(f"must be one of {', '.join(names)}")
        return value

    return validate


def _log_level(value: str) -> str:
    return _one_of("DEBUG", "INFO", "WARNING", "ERROR")(value.upper())


def _key(value: str) -> bytes:
    # Bytes that are not UTF-8 come as surrogates in os.environ; they go back as they were.
    return value.encode("utf-8", "surrogateescape")


def _key_file(value: str) -> bytes:
    try:
        key = Path(value).read_bytes()
    except OSError as error:
        raise vol.Invalid(f"cannot be read: {error.strerror}") from error
    key = key.removesuffix(b"\n").removesuffix(b"\r")
    if not key:
        raise vol.Invalid("names an empty file")
    return key


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise vol.Invalid("must be UTF-8") from None
    return value


def _host(value: str) -> str:
    try:
        _text(value).encode("idna")
    except UnicodeError:
        raise vol.Invalid(
            "must be an address or a name, each label of at most 63 letters"
        ) from None
    return value


def _token(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise vol.Invalid("must be printable ASCII without spaces")
    return value


def _database(value: str) -> Path | str:
    """Return the path of an SQLite file, or a PostgreSQL URL as it is."""
    if re.match("postgres(ql)?://", value):
        if not re.fullmatch(r"postgres(ql)?://[^/?#\s]*/[^/?#\s]+(\?\S*)?", value):
            raise vol.Invalid("must be postgresql://user@host/database")
        return value
    form = re.fullmatch(r"sqlite(?:\+aiosqlite)?:///([^?#]+)", _text(value))
    if not form or form[1].startswith(":") or form[1].endswith("/"):
        raise vol.Invalid(
            "must be sqlite:///relative/path or sqlite:////absolute/path of a file,"
            " or postgresql://user@host/database"
        )
    return Path(form[1])


def _standard_secret(value: str) -> bytes:
    try:
        return standard_key(value)
    except ValueError:
        raise vol.Invalid("must be base64, with or without whsec_ before it") from None


def _in_file(validate: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return the validator of a variable that names a file with the value."""

    def validated(value: str) -> Any:
        return validate(_key_file(value).decode("utf-8", "surrogateescape"))

    return validated


def _public_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", _text(value)):
        raise vol.Invalid("must look like https://example.com, without user, query and fragment")
    try:
        _ = urlsplit(value).port
    except ValueError:
        raise vol.Invalid("must have a port from 0 to 65535, or none") from None
    return value.rstrip("/")


def _hosts(value: str) -> tuple[str, ...]:
    hosts = tuple(re.split(r"[,\s]+", value.strip(", ").lower()))
    if not all(re.fullmatch(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]", host) for host in hosts):
        raise vol.Invalid("must be names or addresses without ports, with commas between")
    return hosts


def _networks(value: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(each) for each in re.split(r"[,\s]+", value.strip(", ")))
    except ValueError:
        raise vol.Invalid("must be addresses or networks, with commas between") from None


_DOTENV = Path(".env")

# What proves a sender; each may also stand in a file, and have a previous value.
_SECRETS: Mapping[str, Callable[[str], Any]] = {
    "WEBHOOK_SECRET": _key,
    "STANDARD_WEBHOOKS_SECRET": _standard_secret,
    "WHATSAPP_APP_SECRET": _key,
    "TWILIO_AUTH_TOKEN": _key,
    "WHATSAPP_VERIFY_TOKEN": _text,
}

# Each variable with the default as one would set it, and its validator. None: no default.
VARIABLES: Mapping[str, tuple[str | None, Callable[[str], Any]]] = {
    **{
        f"{name}{form}": (None, _in_file(validate) if form.endswith("_FILE") else validate)
        for name, validate in _SECRETS.items()
        for form in ("", "_PREVIOUS", "_FILE", "_PREVIOUS_FILE")
    },
    "PUBLIC_URL": (None, _public_url),
    "REFUSED_LIMIT": ("10000", _integer(0, 10**7)),
    "DATABASE_URL": ("sqlite:///data/app.db", _database),
    "DATABASE_URL_FILE": (None, _in_file(_database)),
    "WAIT_SECONDS": ("30", _seconds),
    "HOST": ("127.0.0.1", _host),
    "PORT": ("8000", _integer(0, 65535)),
    "LOG_LEVEL": ("INFO", _log_level),
    # Unset: text on a terminal, else json.
    "LOG_FORMAT": (None, _one_of("json", "text")),
    "APP_NAME": ("lyftr", _text),
    "ENV": ("production", _text),
    "DEDUPE_BY": ("message_id", _one_of("message_id", "content")),
    "READ_TOKEN": (None, _token),
    "ALLOWED_HOSTS": (None, _hosts),
    "TRUSTED_PROXIES": (None, _networks),
    "READ_TOKEN_FILE": (None, _in_file(_token)),
    "ADMIN_TOKEN": (None, _token),
    "ADMIN_TOKEN_FILE": (None, _in_file(_token)),
    "RETENTION_DAYS": (None, _days),
    "TOMBSTONE_DAYS": ("30", _days),
    # What `forward` signs with.
    "FORWARD_SECRET": (None, _standard_secret),
    "FORWARD_SECRET_FILE": (None, _in_file(_standard_secret)),
    "MAX_BODY_BYTES": ("1048576", _integer(1, 2**30)),
    "BODY_BUDGET_BYTES": ("67108864", _integer(1, 2**40)),
    "QUEUE_LIMIT": ("10000", _integer(1, 10**7)),
    "DRAIN_SECONDS": ("10", _seconds),
    "DRAIN_DELAY_SECONDS": ("0", _seconds),
}

_SCHEMA = vol.Schema(
    {
        vol.Optional(name) if default is None else vol.Optional(name, default=default): validator
        for name, (default, validator) in VARIABLES.items()
    },
    extra=vol.REMOVE_EXTRA,
)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a server is told. `secrets` has the current key first, then the previous one."""

    secrets: tuple[bytes, ...] = field(repr=False)
    database: Path | str = field(default=Path("data/app.db"), repr=False)  # a file, or a URL
    wait_seconds: float = 30.0
    host: str = "127.0.0.1"
    port: int = 8000
    log_level: str = "INFO"
    app_name: str = "lyftr"
    env: str = "production"
    dedupe_by: str = "message_id"
    read_token: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    admin_token: str | None = field(default=None, repr=False)
    retention_days: float | None = None
    tombstone_days: float = 30.0
    max_body_bytes: int = 1048576
    body_budget_bytes: int = 67108864
    queue_limit: int = 10000
    drain_seconds: float = 10.0
    drain_delay_seconds: float = 0.0
    standard_webhooks_secrets: tuple[bytes, ...] = field(default=(), repr=False)
    whatsapp_app_secrets: tuple[bytes, ...] = field(default=(), repr=False)
    whatsapp_verify_tokens: tuple[str, ...] = field(default=(), repr=False)
    twilio_auth_tokens: tuple[bytes, ...] = field(default=(), repr=False)
    public_url: str | None = None
    refused_limit: int = 10000

    @property
    def loopback(self) -> bool:
        """Whether nobody beyond this machine can reach us."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    @property
    def database_path(self) -> Path:
        """The database's file, where it is one."""
        if not isinstance(self.database, Path):
            raise TypeError("the database is a server's")
        return self.database

    @classmethod
    def from_environ(cls) -> "Config":
        """Read the environment and ./.env, or raise ConfigError with every fault at once."""
        given = environment()
        faults = {
            f"{name}_FILE": f"must not be set together with {name}"
            for secret in (*_SECRETS, "READ_TOKEN", "ADMIN_TOKEN")
            for name in (secret, f"{secret}_PREVIOUS")
            if name in given and f"{name}_FILE" in given
        }
        if "DATABASE_URL" in given and "DATABASE_URL_FILE" in given:
            faults |= {"DATABASE_URL_FILE": "must not be set together with DATABASE_URL"}
        if "WEBHOOK_SECRET" not in given and "WEBHOOK_SECRET_FILE" not in given:
            faults |= {"WEBHOOK_SECRET": "must be set to the key that senders sign with"}
        if {"TWILIO_AUTH_TOKEN", "TWILIO_AUTH_TOKEN_FILE"} & given.keys() and (
            "PUBLIC_URL" not in given
        ):
            faults |= {"PUBLIC_URL": "must be set to the server's own address for Twilio"}
        try:
            values = _SCHEMA(given)
        except vol.MultipleInvalid as error:
            raise ConfigError(faults | _named(error)) from error
        if values["BODY_BUDGET_BYTES"] < values["MAX_BODY_BYTES"]:
            faults |= {"BODY_BUDGET_BYTES": "must not be less than MAX_BODY_BYTES"}
        read_token, admin_token = (
            values.get(name) or values.get(f"{name}_FILE") for name in ("READ_TOKEN", "ADMIN_TOKEN")
        )
        if admin_token and admin_token == read_token:
            faults |= {"ADMIN_TOKEN": "must differ from READ_TOKEN: it can delete"}
        if faults:
            raise ConfigError(faults)
        return cls(
            secrets=_keys(values, "WEBHOOK_SECRET"),
            database=values.get("DATABASE_URL_FILE") or values["DATABASE_URL"],
            wait_seconds=values["WAIT_SECONDS"],
            host=values["HOST"],
            port=values["PORT"],
            log_level=values["LOG_LEVEL"],
            app_name=values["APP_NAME"],
            env=values["ENV"],
            dedupe_by=values["DEDUPE_BY"],
            allowed_hosts=values.get("ALLOWED_HOSTS", ()),
            trusted_proxies=values.get("TRUSTED_PROXIES", ()),
            read_token=read_token,
            admin_token=admin_token,
            retention_days=values.get("RETENTION_DAYS"),
            tombstone_days=values["TOMBSTONE_DAYS"],
            max_body_bytes=values["MAX_BODY_BYTES"],
            body_budget_bytes=values["BODY_BUDGET_BYTES"],
            queue_limit=values["QUEUE_LIMIT"],
            drain_seconds=values["DRAIN_SECONDS"],
            drain_delay_seconds=values["DRAIN_DELAY_SECONDS"],
            standard_webhooks_secrets=_keys(values, "STANDARD_WEBHOOKS_SECRET"),
            whatsapp_app_secrets=_keys(values, "WHATSAPP_APP_SECRET"),
            whatsapp_verify_tokens=_keys(values, "WHATSAPP_VERIFY_TOKEN"),
            twilio_auth_tokens=_keys(values, "TWILIO_AUTH_TOKEN"),
            public_url=values.get("PUBLIC_URL"),
            refused_limit=values["REFUSED_LIMIT"],
        )


def _keys(values: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    """Return the values of a secret that are set, the current one first."""
    forms = ((name, f"{name}_FILE"), (f"{name}_PREVIOUS", f"{name}_PREVIOUS_FILE"))
    found = (next((values[form] for form in each if form in values), None) for each in forms)
    return tuple(value for value in found if value)


def environment() -> dict[str, str]:
    """Return the variables that are set; an empty one counts as unset. The environment wins."""
    try:
        # interpolate=False: a secret may hold a dollar sign.
        values = dotenv_values(_DOTENV, interpolate=False) if _DOTENV.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError({str(_DOTENV): f"cannot be read: {type(error).__name__}"}) from error
    return {name: value for name, value in {**values, **os.environ}.items() if value}


def override(**values: str | None) -> None:
    """Let what the command line gives win over the environment, in this process."""
    os.environ.update({name: value for name, value in values.items() if value is not None})


def setting(name: str) -> Any:
    """Return one variable's value, for commands that need no more; ConfigError when it is bad."""
    default, validate = VARIABLES[name]
    value = environment().get(name, default)
    try:
        return None if value is None else validate(value)
    except vol.Invalid as error:
        raise ConfigError({name: error.msg}) from error


def database_file() -> Path:
    """Return the database's path, for commands that read a file; ConfigError for a server's."""
    database = setting("DATABASE_URL_FILE") or setting("DATABASE_URL")
    if not isinstance(database, Path):
        raise ConfigError(
            {"DATABASE_URL": "is a server's: this command reads an SQLite file (sqlite:///path)"}
        )
    return database


def secret(name: str = "WEBHOOK_SECRET") -> bytes:
    """Return a current key, for commands that sign; ConfigError when there is none."""
    key = setting(name) or setting(f"{name}_FILE")
    if key is None:
        raise ConfigError({name: "must be set to the key that the server verifies with"})
    return bytes(key)


def notify_socket() -> str | None:
    """Return the address of systemd's notification socket, when started by systemd."""
    return os.environ.get("NOTIFY_SOCKET")


def watchdog_seconds() -> float | None:
    """Return how often systemd wants to hear from us (WatchdogSec), or None."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    value = os.environ.get("WATCHDOG_USEC", "")
    return int(value) / 1e6 if re.fullmatch("[0-9]+", value) else None


def _named(error: vol.MultipleInvalid) -> dict[str, str]:
    return {str(each.path[0]): each.msg for each in error.errors}
