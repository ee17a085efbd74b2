"""From raw rounds to medians, ratios, bars, tables and files."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import picture

Round = dict[str, Any]
MAIN_CONNECTIONS = 64


def main_connections(connections: Sequence[int]) -> int:
    """Return the load at which everything is compared: 64 connections, or the one nearest to it."""
    return min(connections, key=lambda number: abs(number - MAIN_CONNECTIONS))


def headline(facts: dict[str, Any]) -> str:
    """Return one line about the machine."""
    return (
        f"{facts['date']}; {facts['cpu']}, {facts['cores']} cores; {facts['kernel']}; "
        f"Python {facts['python']}, SQLite {facts['sqlite']}, Tornado {facts['tornado']}, "
        f"Node {facts['node']}; {facts['load']}; "
        f"a sync of 4 KB takes {facts['sync_ms']:.2f} ms"
    )


def progress(result: Round) -> str:
    """Return the line that is shown when a round is over."""
    text = f"round {result['round']}  {result['connections']:>3} conn  {result['server']:<16}"
    if "rate" in result:
        text += (
            f" {result['rate']:>8,.0f}/s  p50 {result['p50_ms']:8.2f}  p99 {result['p99_ms']:8.2f}"
            f" ms  {result['cpu_us']:6.0f} us CPU  {result['rss_mb']:4.0f} MB"
        )
        if result["refused"]:
            text += f"  {result['refused']} answers of 400 and more"
    return text + "".join(f"\n    DOES NOT COUNT: {fault}" for fault in result["faults"])


@dataclass(frozen=True)
class Spread:
    """A median with the least and the greatest value."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def show(self, form: str) -> str:
        """Write it as 5,310 (5,100-5,402)."""
        low, middle, high = (
            f"{value:{form}}" for value in (min(self.values), self.median, max(self.values))
        )
        return middle if low == high else f"{middle} ({low}–{high})"


@dataclass(frozen=True)
class Bar:
    """One thing that must hold; `passed` is None when it was not measured."""

    text: str
    measured: str
    passed: bool | None

    def show(self) -> str:
        word = {True: "PASS", False: "FAIL", None: "not measured"}[self.passed]
        return (
            f"{word:<5} {self.text}: {self.measured}" if self.measured else f"{word}: {self.text}"
        )


# Heading, key of a round, format. Everything is "median (least-greatest)" over the rounds.
COLUMNS = (
    ("messages/s", "rate", ",.0f"),
    ("to bare", "ratio", ".2f"),
    ("p50 ms", "p50_ms", ".2f"),
    ("p99 ms", "p99_ms", ".1f"),
    ("max ms", "max_ms", ".0f"),
    ("CPU µs each", "cpu_us", ".0f"),
    ("of these the loop", "loop_us", ".0f"),
    ("peak RSS MB", "rss_mb", ".0f"),
    ("not 200", "refused", ".0f"),
)


@dataclass(frozen=True)
class Outcome:
    """All that one run of the benchmark found."""

    facts: dict[str, Any]
    plan: dict[str, int]
    skipped: dict[str, str]
    rounds: list[Round]

    @property
    def loads(self) -> list[int]:
        return sorted({result["connections"] for result in self.rounds})

    def labels(self) -> dict[str, str]:
        """Return the servers that were measured, in their order, with what to call them."""
        main = main_connections(self.loads)
        # Everybody runs at the main load: there they stand in their order.
        rounds = sorted(self.rounds, key=lambda result: bool(result["connections"] != main))
        return {result["server"]: result["label"] for result in rounds}

    def values(self, server: str, connections: int, key: str) -> dict[int, float]:
        """Return a figure of a server's valid rounds, by round; `ratio` is to the bare rate."""
        if key == "ratio":
            return self.pairs((server, connections, "rate"), ("bare", connections, "rate"), _ratio)
        return {
            result["round"]: result[key]
            for result in self.rounds
            if (result["server"], result["connections"]) == (server, connections)
            and not result["faults"]
        }

    def pairs(
        self,
        one: tuple[str, int, str],
        other: tuple[str, int, str],
        join: Callable[[float, float], float],
    ) -> dict[int, float]:
        """Join two figures of the same round, so that what slowed down both falls out."""
        left, right = self.values(*one), self.values(*other)
        return {number: join(left[number], right[number]) for number in left.keys() & right.keys()}

    def bars(self) -> list[Bar]:
        """Compare with what the project promises."""
        at = MAIN_CONNECTIONS
        rate, p99 = ("ours", at, "rate"), ("ours", at, "p99_ms")
        bare = ("bare", at, "rate")
        full = self.pairs(("ours-full", at, "rate"), bare, _ratio)
        each = self.pairs(rate, ("commit-each", at, "rate"), _ratio)
        late = self.pairs(p99, ("bare", at, "p99_ms"), _ratio)
        many = self.pairs(("ours", 256, "rate"), rate, _ratio)
        lone = self.pairs(("ours", 1, "p50_ms"), ("bare", 1, "p50_ms"), lambda a, b: a - b)
        refused = [
            r["refused"] for r in self.rounds if r["server"].startswith("ours") and "rate" in r
        ]
        rows = f"{self.plan['rows']:,}"
        bars = [
            _at_least("rate to bare, 64 connections", self.pairs(rate, bare, _ratio), 1.4),
            _at_least(f"rate to bare with {rows} messages stored before", full, 1.1),
            _at_least("rate to a commit for each request, 64 connections", each, 3.0),
            _at_most("p99 to that of bare, 64 connections", late, 1.5),
            _at_least("rate at 256 connections to that at 64", many, 0.9),
            _at_most("ms that p50 is above that of bare, 1 connection", lone, 0.6),
        ]
        if refused:
            bars.append(_at_most("answers of 400 and more, all rounds", {0: sum(refused)}, 0))
        return bars

    def text(self) -> str:
        """Return the tables and bars for a terminal."""
        parts = ["", headline(self.facts), ""]
        for connections in self.loads:
            parts += [_plural(connections), *_aligned(self._table(connections)), ""]
        parts += [f"SKIPPED {name}: {why}" for name, why in self.skipped.items()]
        return "\n".join(parts + [bar.show() for bar in self.bars()])

    def _table(self, connections: int) -> list[list[str]]:
        rows = [["server", *(heading for heading, _, _ in COLUMNS)]]
        for server, label in self.labels().items():
            if self.values(server, connections, "rate"):
                rows.append([label, *self._cells(server, connections)])
        return rows

    def _cells(self, server: str, connections: int) -> Iterator[str]:
        for _, key, form in COLUMNS:
            values = self.values(server, connections, key)
            yield Spread(list(values.values())).show(form) if values else "–"

    def markdown(self) -> str:
        """Return the tables as the README shows them."""
        main = main_connections(self.loads)
        plan = self.plan
        parts = [
            f"Measured {headline(self.facts)}.",
            "",
            f"{plan['rounds']} interleaved rounds of {plan['seconds']} s, each server started "
            "fresh for each; unique signed messages; median (least–greatest). All that store "
            "sync before they answer (`synchronous=FULL`), and after each round their rows were "
            "counted against their answers.",
            "",
            f"{_plural(main)}:",
            "",
            *_markdown(self._table(main)),
            "",
            "Messages a second (p50 / p99 ms) by connections:",
            "",
            *_markdown(self._sweep()),
            "",
            *(f"Not measured: {name} ({why})." for name, why in self.skipped.items()),
            *(f"- {bar.show()}" for bar in self.bars()),
            "",
        ]
        return "\n".join(parts)

    def _sweep(self) -> list[list[str]]:
        rows = [["server", *map(str, self.loads)]]
        for server, label in self.labels().items():
            cells = []
            for connections in self.loads:
                rate, p50, p99 = (
                    self.values(server, connections, key).values()
                    for key in ("rate", "p50_ms", "p99_ms")
                )
                medians = [statistics.median(values) for values in (rate, p50, p99) if values]
                cells.append("{:,.0f} ({:.2f} / {:.1f})".format(*medians) if medians else "–")
            # Who was measured at the main load alone is in the table above.
            if len(cells) - cells.count("–") >= min(2, len(cells)):
                rows.append([label, *cells])
        return rows

    def picture(self) -> str:
        """Return the picture of the rates at the main load, as SVG."""
        main = main_connections(self.loads)
        groups: dict[str, list[picture.Strip]] = {}
        for server, label in self.labels().items():
            if not (rates := list(self.values(server, main, "rate").values())):
                continue
            spread = Spread(rates)
            strip = picture.Strip(
                label=label.partition(", sync +")[0],
                median=spread.median,
                low=min(rates),
                high=max(rates),
                figure=spread.show(",.0f"),
                ours=server.startswith("ours"),
            )
            delay = server.partition("+")[2].removesuffix("ms")
            title = f"each sync {delay} ms slower" if delay else "the disk as it is"
            groups.setdefault(title, []).append(strip)
        heading = f"Signed messages stored a second, {main} connections"
        return picture.draw(heading, headline(self.facts), groups)

    def write(self, folder: Path) -> None:
        """Write the raw rounds, the tables and the picture."""
        bars = [{"bar": b.text, "measured": b.measured, "passed": b.passed} for b in self.bars()]
        raw = {
            "machine": self.facts,
            "plan": self.plan,
            "skipped": self.skipped,
            "bars": bars,
            "rounds": self.rounds,
        }
        (folder / "ingest.json").write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
        (folder / "ingest.md").write_text(self.markdown())
        (folder / "ingest.svg").write_text(self.picture())


def _ratio(one: float, other: float) -> float:
    return one / other


def _plural(connections: int) -> str:
    return f"{connections} connection{'s' if connections > 1 else ''}"


def _at_least(text: str, values: dict[int, float], limit: float) -> Bar:
    return _bar(f"{text}, at least {limit:g}", values, lambda median: median >= limit)


def _at_most(text: str, values: dict[int, float], limit: float) -> Bar:
    return _bar(f"{text}, at most {limit:g}", values, lambda median: median <= limit)


def _bar(text: str, values: dict[int, float], holds: Callable[[float], bool]) -> Bar:
    if not values:
        return Bar(text, "", None)
    spread = Spread(list(values.values()))
    return Bar(text, spread.show(".2f"), holds(spread.median))


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *cells in rows:
        right = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *right])


def _markdown(rows: list[list[str]]) -> Iterator[str]:
    heading, *body = rows
    yield f"| {' | '.join(heading)} |"
    yield f"|---|{'---:|' * (len(heading) - 1)}"
    for row in body:
        yield f"| {' | '.join(row)} |"
