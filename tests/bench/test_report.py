"""The benchmark's own arithmetic: what counts, what passes, what is missing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.bench.bodies import write_bodies
from tests.bench.report import Outcome, Spread, main_connections

FACTS = {
    "date": "2026-01-01 00:00 UTC",
    "cpu": "A <fast> processor & more",
    "cores": 2,
    "kernel": "Linux 6",
    "python": "3.11",
    "sqlite": "3.40",
    "tornado": "6.6",
    "node": "none",
    "load": "wrk 4",
    "sync_ms": 0.2,
}


def measured(server: str, connections: int, rate: float, **more: Any) -> dict[str, Any]:
    result = {
        "round": 1,
        "server": server,
        "label": server.capitalize(),
        "connections": connections,
        "rate": rate,
        "p50_ms": 1.0,
        "p99_ms": 10.0,
        "max_ms": 20.0,
        "cpu_us": 100.0,
        "loop_us": 60.0,
        "rss_mb": 30.0,
        "refused": 0,
        "faults": [],
    }
    return result | more


def outcome(*rounds: dict[str, Any]) -> Outcome:
    plan = {"rounds": 1, "seconds": 6, "rows": 1000}
    return Outcome(facts=FACTS, plan=plan, skipped={"node": "no npm"}, rounds=list(rounds))


def test_ratios_are_taken_within_a_round() -> None:
    found = outcome(
        measured("bare", 64, 1000),
        measured("ours", 64, 1500),
        measured("bare", 64, 2000, round=2),
        measured("ours", 64, 3000, round=2),
    )
    assert found.values("ours", 64, "ratio") == {1: 1.5, 2: 1.5}


def test_a_round_with_a_fault_does_not_count() -> None:
    found = outcome(
        measured("bare", 64, 1000),
        measured("ours", 64, 9000, faults=["9000 answers 200 and 8000 rows"]),
        measured("bare", 64, 1000, round=2),
        measured("ours", 64, 1100, round=2),
    )
    assert found.values("ours", 64, "ratio") == {2: 1.1}
    assert found.bars()[0].passed is False


def test_a_round_that_broke_off_needs_no_figures() -> None:
    broken = {"round": 1, "server": "ours", "label": "Ours", "connections": 64, "faults": ["died"]}
    found = outcome(measured("bare", 64, 1000), broken)
    assert found.bars()[0].passed is None
    assert "Ours" not in found.markdown()


@pytest.mark.parametrize(
    "bar, rounds, passed",
    [
        pytest.param(0, [("bare", 64, 1000, {}), ("ours", 64, 1400, {})], True, id="bare reached"),
        pytest.param(0, [("bare", 64, 1000, {}), ("ours", 64, 1399, {})], False, id="bare missed"),
        pytest.param(
            1, [("bare", 64, 1000, {}), ("ours-full", 64, 1090, {})], False, id="full missed"
        ),
        pytest.param(
            2, [("ours", 64, 3000, {}), ("commit-each", 64, 1000, {})], True, id="each reached"
        ),
        pytest.param(
            3,
            [("bare", 64, 1, {"p99_ms": 10}), ("ours", 64, 1, {"p99_ms": 15.1})],
            False,
            id="p99 missed",
        ),
        pytest.param(4, [("ours", 64, 1000, {}), ("ours", 256, 900, {})], True, id="256 reached"),
        pytest.param(
            5,
            [("bare", 1, 1, {"p50_ms": 0.2}), ("ours", 1, 1, {"p50_ms": 0.9})],
            False,
            id="lone missed",
        ),
        pytest.param(6, [("ours", 64, 1000, {"refused": 1})], False, id="refused"),
        pytest.param(2, [("ours", 64, 3000, {})], None, id="other side not measured"),
    ],
)
def test_bars(bar: int, rounds: list[Any], passed: bool | None) -> None:
    found = outcome(*(measured(name, load, rate, **more) for name, load, rate, more in rounds))
    assert found.bars()[bar].passed is passed


def test_a_spread_shows_median_least_and_greatest() -> None:
    assert Spread([3.0, 1.0, 2.0]).show(".1f") == "2.0 (1.0–3.0)"
    assert Spread([5310.4]).show(",.0f") == "5,310"


def test_the_main_load_is_64_or_nearest() -> None:
    assert main_connections([1, 8, 64, 256]) == 64
    assert main_connections([1, 8]) == 8


def test_the_picture_is_well_formed_and_groups_by_disk(tmp_path: Path) -> None:
    found = outcome(
        measured("bare", 64, 1000),
        measured("ours", 64, 1500),
        measured("ours+2ms", 64, 700, label="Ours, sync +2 ms"),
    )
    found.write(tmp_path)
    texts = [element.text for element in ET.parse(tmp_path / "ingest.svg").getroot()]
    assert "each sync 2 ms slower" in texts
    assert texts.count("Ours") == 2
    assert "node" in (tmp_path / "ingest.md").read_text()


def test_no_two_bodies_are_the_same(tmp_path: Path) -> None:
    write_bodies(tmp_path / "one", "1.64.ours", 500, "secret", threads=2)
    write_bodies(tmp_path / "two", "1.64.node", 500, "secret", threads=1)
    lines = [line for path in sorted(tmp_path.iterdir()) for line in path.read_bytes().splitlines()]
    ids = [re.search(rb'"message_id":"([^"]+)"', line)[1] for line in lines]  # type: ignore[index]
    assert len(lines) == 1000
    assert len(set(ids)) == 1000
    assert 270 < sum(len(line) - 64 for line in lines) / 1000 < 310
