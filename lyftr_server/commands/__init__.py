"""One module for each command; `add_to(commands)` declares its options, and `run` runs it."""

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


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
