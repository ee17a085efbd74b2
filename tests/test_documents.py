"""What README.md and docs/ promise exists, and what exists is in them."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lyftr_server.config import VARIABLES
from lyftr_server.handlers import EXACT, PATTERNS
from lyftr_server.metrics import RESULTS
from lyftr_server.sources import routes

from .conftest import Client
from .process import ROOT

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(path.read_text() for path in DOCUMENTS)


def section(heading: str) -> str:
    """Return the text under `## heading`, up to the next heading of that rank."""
    found = re.findall(rf"^## {heading}$(.*?)(?=^##? |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"one document has a section {heading}"
    return str(found[0])


def first_column(heading: str) -> list[str]:
    """Return the names in backticks in the first column of the section's tables."""
    rows = re.findall(r"^\|(.*?)\|", section(heading), re.MULTILINE)
    return [name for cell in rows for name in re.findall(r"`([^`]+)`", cell)]


def row(heading: str, name: str) -> str:
    """Return the table row of `name`."""
    found = re.search(rf"^\|[^|\n]*`{re.escape(name)}`.*$", section(heading), re.MULTILINE)
    assert found, name
    return found[0]


def test_the_configuration_names_every_variable_once() -> None:
    assert sorted(first_column("Configuration")) == sorted(VARIABLES)


@pytest.mark.parametrize(
    "name, default", [(name, default) for name, (default, _) in VARIABLES.items() if default]
)
def test_the_configuration_names_every_default(name: str, default: str) -> None:
    assert f"`{default}`" in row("Configuration", name).replace(f"| `{name}` |", "|")


def test_the_routes_are_those_that_exist() -> None:
    # The section has tables of fields and parameters too.
    names = [re.sub(r"^[A-Z, ]+ ", "", name) for name in first_column("Routes")]
    named = {name for name in names if name.startswith("/")}
    patterns = {handler.route for _, handler in PATTERNS}
    # The pages' own files are a part of them.
    parts = ("/docs/", "/inspector/", "/favicon.ico")
    assert named == {
        route for route in {*EXACT, *patterns, *routes()} if not route.startswith(parts)
    }


# What only one of the databases has.
ONLY = {
    "sqlite": {"lyftr_wal_bytes", "lyftr_disk_free_bytes", "lyftr_disk_size_bytes"},
    "postgres": {"lyftr_unfolded_batches", "lyftr_standbys", "lyftr_standby_lag_bytes"},
}


@pytest.mark.every_database
async def test_the_metrics_are_those_that_exist(client: Client, engine: str) -> None:
    answer = await client.get("/metrics")
    families = text_string_to_metric_families(answer.body.decode())
    exposed = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in families
        if not family.name.startswith("process_")
    }
    named = {re.sub(r"\{.*\}$", "", name) for name in first_column("Metrics")}
    elsewhere = set[str]().union(*(names for name, names in ONLY.items() if name != engine))
    elsewhere |= {"lyftr_standby_lag_bytes"}  # without standbys
    ours = {name for name in named if not name.startswith("process_")}
    assert ours - elsewhere == exposed - {"lyftr_standby_lag_bytes"}
    assert ONLY[engine] <= ours


def test_every_result_is_explained() -> None:
    assert [name for name in RESULTS if f"`{name}`" not in TEXT] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match("[a-z]+:", target):
            continue  # elsewhere
        name, _, fragment = target.partition("#")
        aim = path.parent / name if name else path
        assert aim.exists(), target
        assert not fragment or fragment in anchors(aim.read_text()), target


def test_the_first_page_leads_to_every_other() -> None:
    first = (ROOT / "README.md").read_text()
    assert [path.name for path in DOCUMENTS if f"{path.name})" not in first + "README.md)"] == []


def anchors(markdown: str) -> set[str]:
    """Return the fragments that GitHub gives to headings."""
    headings = re.findall(r"^#+ +(.+?) *$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
