"""Draws the map of the house in CONTRIBUTING.md from the imports: python -m tests.house_map.

A room's arrows go to what it imports. What another arrow implies is left out, so that the lines
show the layers (the transitive reduction of the imports).
"""

import re

from .process import ROOT
from .test_architecture import imports, own_part

PAGE = ROOT / "CONTRIBUTING.md"
_PLACE = re.compile(
    r"(?<=<!-- map: drawn from the imports by `make map` -->\n).*?(?=<!-- map ends -->)", re.DOTALL
)
_LEFT_OUT = {"__init__", "__main__"}


def arrows() -> dict[str, set[str]]:
    """Return each room with the rooms that it imports."""
    found: dict[str, set[str]] = {}
    for each in imports():
        aim = own_part(each.module)
        if each.part in _LEFT_OUT:
            continue
        found.setdefault(each.part, set())
        if aim and aim != each.part and aim not in _LEFT_OUT:
            found[each.part].add(aim)
    return found


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the graph without the arrows that a longer way implies."""

    def reach(room: str) -> set[str]:
        return set().union(*({aim} | reach(aim) for aim in graph.get(room, ())))

    return {
        room: {
            aim for aim in aims if not any(aim in reach(other) for other in aims if other != aim)
        }
        for room, aims in graph.items()
    }


def drawing() -> str:
    """Return the picture as a Mermaid graph, which GitHub draws."""
    lines = ["```mermaid", "graph TD"]
    for room, aims in sorted(reduced(arrows()).items()):
        lines += [f"    {room} --> {aim}" for aim in sorted(aims)]
    return "\n".join([*lines, "```", ""])


def drawn(page: str) -> str:
    return _PLACE.sub(lambda _: drawing(), page)


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text()))
