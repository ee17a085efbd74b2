"""From measured reads to a table, bars and files."""

from __future__ import annotations

import json
import statistics
from typing import Any

from tests.bench.reads_queries import QUERIES, SCAN, Figures
from tests.bench.report import Bar

MOST_ROWS = 1_000_000


class Results:
    """All that one run of the benchmark of reads found."""

    def __init__(self, facts: dict[str, Any], sizes: list[int]) -> None:
        self.facts = facts
        self.sizes = sizes
        self.reads: dict[str, dict[int, Figures]] = {}
        self.rates: dict[str, list[float]] = {}
        self.waits: dict[str, Figures] = {}
        self.longest_fold_ms = 0.0
        self.starts: tuple[float, float] | None = None

    def add(self, name: str, rows: int, figures: Figures) -> None:
        self.reads.setdefault(name, {})[rows] = figures

    # -- bars

    def bars(self) -> list[Bar]:
        """Compare with what the project promises."""
        large = self.sizes[-1]
        bars = []
        for query in QUERIES:
            if query.flat and query.name in self.reads:
                ratio = self.ratio(query.name)
                text = f"{query.name}: p50 at most 3 times that with {self.sizes[0]:,} rows"
                bars.append(Bar(text, f"{ratio:.2f}", ratio <= 3))
        scan = self._p50(SCAN, large)
        for query, least in (("q=1 in 10,000", 30), ("q=three letters", 5)):
            total = self._p50(f"total of {query}", large)
            bars.append(
                Bar(
                    f"total of {query}: at least {least} times as fast as a LIKE scan",
                    f"{scan / total:.0f}",
                    scan / total >= least,
                )
            )
            more = self._p50(f"total and page of {query}", large) - total
            text = f"{query}: the first page at most 20 ms more than the total"
            bars.append(Bar(text, f"{more:.1f} ms", more <= 20))
        return bars + self._search_bars() + self._load_bars()

    def _search_bars(self) -> list[Bar]:
        """Bars for searches, of the largest database that no scan is too long for."""
        size = max(rows for rows in self.sizes if rows <= MOST_ROWS)
        bars = []
        for query in QUERIES:
            if query.name.startswith("q=") and query.name in self.reads:
                what, most = ("first page", 100) if query.total_of is None else ("page", 500)
                most = max(most, most * size // 600_000)
                took = self._p50(query.name, size)
                text = f"{query.name}: the {what} of {size:,} rows at most {most} ms"
                bars.append(Bar(text, f"{took:.0f} ms", took <= most))
        return bars

    def _load_bars(self) -> list[Bar]:
        bars = []
        if self.rates:
            for one, other, least in (("full", "empty", 0.7), ("empty", "plain", 0.8)):
                ratio = self._rate(one) / self._rate(other)
                text = f"ingestion, {one} to {other}: at least {least}"
                bars.append(Bar(text, f"{ratio:.2f}", ratio >= least))
        for name in ("POST /webhook", "/health/live"):
            if f"{name}, idle" in self.waits:
                idle, busy = (self.waits[f"{name}, {s}"].p99_ms for s in ("idle", "beside a scan"))
                text = f"p99 of {name} beside a long scan: at most twice its idle figure"
                bars.append(Bar(text, f"{busy:.2f} to {idle:.2f} ms", busy <= 2 * idle))
        name = "a cheap search beside five dear ones"
        if name in self.waits:
            took = self.waits[name].p99_ms
            bars.append(Bar(f"p99 of {name}: at most 150 ms", f"{took:.0f} ms", took <= 150))
        if self.longest_fold_ms:
            text = "a bulk move of the watermark: at most 25 ms"
            measured = f"{self.waits['a bulk move of the watermark'].p99_ms:.1f} ms at p99"
            bars.append(
                Bar(text, f"{self.longest_fold_ms:.1f} ms, {measured}", self.longest_fold_ms <= 25)
            )
        if self.starts:
            none, full = self.starts
            text = f"start with {self.sizes[-1]:,} rows: at most 1 s more than with none"
            bars.append(Bar(text, f"{full - none:.2f} s", full - none <= 1))
        return bars

    def passed(self) -> bool:
        return all(bar.passed for bar in self.bars())

    def ratio(self, name: str) -> float:
        return self._p50(name, self.sizes[-1]) / self._p50(name, self.sizes[0])

    def _p50(self, name: str, rows: int) -> float:
        return self.reads[name][rows].p50_ms

    def _rate(self, name: str) -> float:
        return statistics.median(self.rates[name])

    # -- words

    def line(self, name: str) -> str:
        """Return the line that is shown as soon as a read is measured."""
        cells = [
            f"{rows:,}: {found.p50_ms:.2f} / {found.p99_ms:.2f} ms"
            for rows, found in self.reads[name].items()
        ]
        return f"{name:<36} {'  '.join(cells)}"

    def _table(self) -> list[list[str]]:
        small, large = self.sizes[0], self.sizes[-1]
        head = ["read", "matches", *(f"{rows:,} rows" for rows in self.sizes)]
        table = [[*head, f"{large:,} : {small:,}"]]
        for name, found in self.reads.items():
            total = found[large].total if large in found else None
            times = (f"{found[rows].p50_ms:.2f} / {found[rows].p99_ms:.2f}" for rows in self.sizes)
            matches = "–" if total is None else f"{total:,}"
            table.append([name, matches, *times, f"{self.ratio(name):.2f}"])
        return table

    def _headline(self) -> str:
        facts = self.facts
        return (
            f"{facts['date']}; {facts['cpu']}, {facts['cores']} cores; {facts['kernel']}; "
            f"Python {facts['python']}, SQLite {facts['sqlite']}; "
            f"a sync of 4 KB takes {facts['sync_ms']:.2f} ms"
        )

    def _notes(self) -> list[str]:
        rates = (
            f"ingestion, {name}: {self._rate(name):,.0f} messages/s ({len(values)} rounds)"
            for name, values in self.rates.items()
        )
        waits = (
            f"{name}: p50 {found.p50_ms:.2f}, p99 {found.p99_ms:.2f} ms"
            for name, found in self.waits.items()
        )
        return [*rates, *waits]

    def text(self) -> str:
        """Return the table and bars for a terminal."""
        table = self._table()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["", self._headline(), "p50 / p99 in ms", ""]
        for row in table:
            cells = [f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)]
            lines.append("  ".join([f"{row[0]:<{widths[0]}}", *cells[1:]]))
        return "\n".join([*lines, "", *self._notes(), "", *(bar.show() for bar in self.bars())])

    def markdown(self) -> str:
        """Return the table and bars as the README shows them."""
        head, *rows = self._table()
        lines = [
            f"Measured {self._headline()}.",
            "",
            "p50 / p99 in ms, over HTTP and one connection, the databases asked in turn; "
            "matches are those in the largest.",
            "",
            f"| {' | '.join(head)} |",
            f"|{'---|' * len(head)}",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            *(f"- {note}" for note in self._notes()),
            *(f"- {bar.show()}" for bar in self.bars()),
            "",
        ]
        return "\n".join(lines)

    def json(self) -> str:
        return json.dumps(
            {
                "facts": self.facts,
                "sizes": self.sizes,
                "reads": {
                    name: {str(rows): figures._asdict() for rows, figures in found.items()}
                    for name, found in self.reads.items()
                },
                "ingestion": self.rates,
                "waits": {name: found._asdict() for name, found in self.waits.items()},
                "longest_fold_ms": self.longest_fold_ms,
                "starts_seconds": self.starts,
                "bars": [bar.__dict__ for bar in self.bars()],
            },
            indent=1,
        )
