"""One module for each command; `add_to(commands)` declares its options, and `run` runs it."""

import argparse
from typing import TypeAlias

from ..config import setting

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class CommandError(Exception):
    """It must not or cannot be done; the words are for the person at the command line."""


# A server that listens on any address answers on the loopback one.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing binds here


def server_address() -> tuple[str, int]:
    """Return the host and port where a server of this configuration answers. ConfigError."""
    host, port = setting("HOST"), setting("PORT")
    return _ANY.get(host, host), port


def server_url() -> str:
    """Return where a server of this configuration answers. ConfigError."""
    host, port = server_address()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def add(
    commands: Commands, name: str, summary: str, *, details: str = "", examples: str = ""
) -> argparse.ArgumentParser:
    """Add a command with help worth reading: what it does, and examples."""
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{details}".strip(),
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
