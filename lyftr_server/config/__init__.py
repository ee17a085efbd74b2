"""The configuration: environment variables, and a .env file for those that are not set."""

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import voluptuous as vol
from dotenv import dotenv_values

from . import values


class ConfigError(Exception):
    """The configuration is unusable; `faults` maps each bad variable to what it must be."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name} {fault}" for name, fault in faults.items()))
        self.faults = dict(faults)


_DOTENV = Path(".env")

SECRET_BYTES = 16  # what a secret should have at least: guessing 128 bits is hopeless

# What proves a sender; each may also stand in a file, and have a previous value.
_SECRETS: Mapping[str, Callable[[str], Any]] = {
    "WEBHOOK_SECRET": values.key,
    "STANDARD_WEBHOOKS_SECRET": values.standard_secret,
    "WHATSAPP_APP_SECRET": values.key,
    "TWILIO_AUTH_TOKEN": values.key,
    "WHATSAPP_VERIFY_TOKEN": values.text,
}

# Each variable with the default as one would set it, and its validator. None: no default.
VARIABLES: Mapping[str, tuple[str | None, Callable[[str], Any]]] = {
    **{
        f"{name}{form}": (None, values.in_file(validate) if form.endswith("_FILE") else validate)
        for name, validate in _SECRETS.items()
        for form in ("", "_PREVIOUS", "_FILE", "_PREVIOUS_FILE")
    },
    "PUBLIC_URL": (None, values.public_url),
    "REFUSED_LIMIT": ("10000", values.integer(0, 10**7)),
    "DATABASE_URL": ("sqlite:///data/app.db", values.database),
    "DATABASE_URL_FILE": (None, values.in_file(values.database)),
    "WAIT_SECONDS": ("30", values.seconds),
    "HOST": ("127.0.0.1", values.host),
    "PORT": ("8000", values.integer(0, 65535)),
    "LOG_LEVEL": ("INFO", values.log_level),
    # Unset: text on a terminal, else json.
    "LOG_FORMAT": (None, values.one_of("json", "text")),
    "APP_NAME": ("lyftr", values.text),
    "ENV": ("production", values.text),
    "DEDUPE_BY": ("message_id", values.one_of("message_id", "content")),
    "READ_TOKEN": (None, values.token),
    "ALLOWED_HOSTS": (None, values.hosts),
    "TRUSTED_PROXIES": (None, values.networks),
    "READ_TOKEN_FILE": (None, values.in_file(values.token)),
    "ADMIN_TOKEN": (None, values.token),
    "ADMIN_TOKEN_FILE": (None, values.in_file(values.token)),
    "RETENTION_DAYS": (None, values.days),
    "TOMBSTONE_DAYS": ("30", values.days),
    # What `forward` signs with.
    "FORWARD_SECRET": (None, values.standard_secret),
    "FORWARD_SECRET_FILE": (None, values.in_file(values.standard_secret)),
    "MAX_BODY_BYTES": ("1048576", values.integer(1, 2**30)),
    "BODY_BUDGET_BYTES": ("67108864", values.integer(1, 2**40)),
    "QUEUE_LIMIT": ("10000", values.integer(1, 10**7)),
    "DRAIN_SECONDS": ("10", values.seconds),
    "DRAIN_DELAY_SECONDS": ("0", values.seconds),
}

_FILES = {name for name in VARIABLES if name.endswith("_FILE")}
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
    def short_secrets(self) -> list[str]:
        """The variables with a secret, current or previous, that is short enough to be guessed."""
        secrets: dict[str, tuple[bytes | str, ...]] = {
            "WEBHOOK_SECRET": self.secrets,
            "STANDARD_WEBHOOKS_SECRET": self.standard_webhooks_secrets,
            "WHATSAPP_APP_SECRET": self.whatsapp_app_secrets,
            "TWILIO_AUTH_TOKEN": self.twilio_auth_tokens,
            "READ_TOKEN": (self.read_token,) if self.read_token else (),
            "ADMIN_TOKEN": (self.admin_token,) if self.admin_token else (),
        }
        return [
            name for name, each in secrets.items() if any(len(one) < SECRET_BYTES for one in each)
        ]

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
            for name in VARIABLES
            if name in given and f"{name}_FILE" in given
        }
        faults |= _missing({name.removesuffix("_FILE") for name in given})
        try:
            found = _SCHEMA(given)
        except vol.MultipleInvalid as error:
            # The others are looked at all the same.
            faults |= _named(error)
            found = _SCHEMA({name: value for name, value in given.items() if name not in faults})
        # From here on it does not matter which of them stood in files.
        found |= {name.removesuffix("_FILE"): found[name] for name in _FILES & found.keys()}
        sizes = {"BODY_BUDGET_BYTES", "MAX_BODY_BYTES"}
        if not sizes & faults.keys() and found["BODY_BUDGET_BYTES"] < found["MAX_BODY_BYTES"]:
            faults |= {"BODY_BUDGET_BYTES": "must not be less than MAX_BODY_BYTES"}
        if "ADMIN_TOKEN" in found and found["ADMIN_TOKEN"] == found.get("READ_TOKEN"):
            faults |= {"ADMIN_TOKEN": "must differ from READ_TOKEN: it can delete"}
        if faults:
            raise ConfigError(faults)
        # A field has the name of its variable, but these; of secrets there may be two.
        found |= {
            "DATABASE": found["DATABASE_URL"],
            "SECRETS": _keys(found, "WEBHOOK_SECRET"),
            **{f"{name}S": _keys(found, name) for name in _SECRETS},
        }
        names = [each.name for each in fields(cls)]
        return cls(**{name: found[name.upper()] for name in names if name.upper() in found})


def _missing(named: Collection[str]) -> dict[str, str]:
    """Return what must be set beside the variables that are, in the one form or the other."""
    faults = {
        name: f"must be set beside {name}_PREVIOUS"
        for name in _SECRETS
        if f"{name}_PREVIOUS" in named and name not in named
    }
    if "WEBHOOK_SECRET" not in named:
        faults |= {"WEBHOOK_SECRET": "must be set to the key that senders sign with"}
    if "TWILIO_AUTH_TOKEN" in named and "PUBLIC_URL" not in named:
        faults |= {"PUBLIC_URL": "must be set to the server's own address for Twilio"}
    return faults


def _keys(found: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    """Return the values of a secret that are set, the current one first."""
    return tuple(found[form] for form in (name, f"{name}_PREVIOUS") if form in found)


def environment() -> dict[str, str]:
    """Return the variables that are set; an empty one counts as unset. The environment wins."""
    try:
        # interpolate=False: a secret may hold a dollar sign.
        filled = dotenv_values(_DOTENV, interpolate=False) if _DOTENV.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError({str(_DOTENV): f"cannot be read: {type(error).__name__}"}) from error
    return {name: value for name, value in {**filled, **os.environ}.items() if value}


def override(**values: str | None) -> None:
    """Let what the command line gives win over the environment, in this process."""
    os.environ.update({name: value for name, value in values.items() if value is not None})


def setting(name: str) -> Any:
    """Return one variable's value, or its file's; ConfigError when it is bad.

    For commands that need no more.
    """
    given = environment()
    form = f"{name}_FILE" if f"{name}_FILE" in given and f"{name}_FILE" in VARIABLES else name
    default, validate = VARIABLES[form]
    value = given.get(form, default)
    try:
        return None if value is None else validate(value)
    except vol.Invalid as error:
        raise ConfigError({form: error.msg}) from error


def database_file() -> Path:
    """Return the database's path, for commands that read a file; ConfigError for a server's."""
    database = setting("DATABASE_URL")
    if not isinstance(database, Path):
        raise ConfigError(
            {"DATABASE_URL": "is a server's: this command reads an SQLite file (sqlite:///path)"}
        )
    return database


def secret(name: str = "WEBHOOK_SECRET") -> bytes:
    """Return a current key, for commands that sign; ConfigError when there is none."""
    key = setting(name)
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
