"""Horizontal bars as SVG: readable on a light and on a dark page, with no script and no library."""

from __future__ import annotations

from html import escape
from typing import NamedTuple

WIDTH = 900
LABELS = 320
FIGURES = 190
LINE = 30

STYLE = """
  text { font: 14px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
  .title { font-size: 18px; font-weight: 600; }
  .group { font-weight: 600; }
  .small { font-size: 11px; fill: #59636e; }
  .ours { fill: #1a7f5a; }
  .other { fill: #8c959f; }
  .range { stroke: #1f2328; stroke-width: 1.5; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .small { fill: #9198a1; }
    .ours { fill: #3fb98a; }
    .other { fill: #6e7681; }
    .range { stroke: #e6edf3; }
  }
"""


class Strip(NamedTuple):
    """One bar: its name, its length, how far the rounds lay apart."""

    label: str
    median: float
    low: float
    high: float
    figure: str
    ours: bool


def draw(heading: str, footnote: str, groups: dict[str, list[Strip]]) -> str:
    """Return the whole picture; each group has its own heading, all share one scale."""
    longest = max((strip.high for strips in groups.values() for strip in strips), default=1.0)
    scale = (WIDTH - LABELS - FIGURES) / longest
    parts = [_text(16, 30, heading, "title")]
    y = 48
    for title, strips in groups.items():
        y += 10
        parts.append(_text(16, y + 18, title, "group"))
        y += LINE
        for strip in strips:
            parts += _strip(strip, y, scale)
            y += LINE
    for line in _folded(footnote, 140):
        parts.append(_text(16, y + 18, line, "small"))
        y += 16
    height = y + 20
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="{escape(heading)}">',
        f"<title>{escape(heading)}</title>",
        f"<style>{STYLE}</style>",
        *parts,
        "</svg>\n",
    ])  # fmt: skip


def _strip(strip: Strip, y: int, scale: float) -> list[str]:
    width, low, high = (value * scale for value in (strip.median, strip.low, strip.high))
    kind = "ours" if strip.ours else "other"
    middle = y + 12
    parts = [
        _text(LABELS - 10, y + 17, strip.label, anchor="end"),
        f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{width:.1f}" height="24" rx="2"/>',
        _text(LABELS + max(width, high) + 8, y + 17, strip.figure),
    ]
    if strip.high > strip.low:
        x1, x2 = LABELS + low, LABELS + high
        parts.append(
            f'<line class="range" x1="{x1:.1f}" y1="{middle}" x2="{x2:.1f}" y2="{middle}"/>'
        )
    return parts


def _text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}"{attribute}>{escape(content)}</text>'


def _folded(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
