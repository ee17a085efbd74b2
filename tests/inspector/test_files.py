"""The inspector's files: what is served, how it may be kept, and what it may never do."""

import re
from pathlib import Path

import pytest

from lyftr_server.handlers.inspector import _FOLDER

from ..conftest import Client

FIRST_VIEW_BYTES = 150_000
SCRIPTS = sorted(_FOLDER.glob("*.js"))
MEDIA_TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


def linked(page: str) -> list[str]:
    """Return what the page loads, once each."""
    return sorted(set(re.findall(r'(?:src|href)="(inspector/assets/[^"]+)"', page)))


async def test_the_page_names_every_file_in_one_version_that_is_kept_for_ever(
    client: Client,
) -> None:
    page = (await client.get("/inspector")).body.decode()
    urls = linked(page)
    assert {url.rpartition("/")[2] for url in urls} == {
        path.name for path in _FOLDER.iterdir() if path.suffix != ".html"
    }
    assert len({url.split("/")[2] for url in urls}) == 1
    for url in urls:
        answer = await client.get(f"/{url}")
        name = url.rpartition("/")[2]
        assert (answer.code, answer.body) == (200, (_FOLDER / name).read_bytes())
        media_type = MEDIA_TYPES[name.rpartition(".")[2]]
        assert answer.headers["Content-Type"] == f"{media_type}; charset=utf-8"
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        stale = await client.get(f"/inspector/assets/other/{name}")
        assert (stale.body, stale.headers["Cache-Control"]) == (answer.body, "no-cache")


async def test_everything_together_is_small(client: Client) -> None:
    page = (await client.get("/inspector")).body
    bodies = [(await client.get(f"/{url}")).body for url in linked(page.decode())]
    assert len(page) + sum(map(len, bodies)) < FIRST_VIEW_BYTES


@pytest.mark.parametrize("name", ["index.html", "none.js", "..%2Findex.html", "%2e%2e%2fapp.py"])
async def test_no_other_file_is_to_be_had(client: Client, name: str) -> None:
    assert (await client.get(f"/inspector/assets/x/{name}")).code == 404


async def test_the_policy_allows_our_own_files_and_nothing_else(client: Client) -> None:
    answer = await client.get("/inspector")
    policy = dict(
        directive.split(" ", 1)
        for directive in answer.headers["Content-Security-Policy"].split("; ")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-cache"
    page = answer.body.decode()
    assert "//" not in page
    assert not re.search(r"<style|<script(?![^>]*src=)| style=| on[a-z]+=", page)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_html_or_code_of_text(path: Path) -> None:
    source = path.read_text()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in source
    assert "localStorage" not in source
    assert "https:" not in re.sub(r"//.*", "", source)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_import_is_a_file_of_the_page(path: Path) -> None:
    source = path.read_text()
    for name in re.findall(r'from "([^"]+)"', source):
        assert name.startswith("./"), name
        assert (_FOLDER / name).is_file(), name
