"""The API page: its files, its policy, and how it works in a browser without the internet."""

import json
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from lyftr_server.handlers.docs import SwaggerScriptHandler, _asset
from lyftr_server.openapi import document
from lyftr_server.openapi.deliveries import EXAMPLE_SECRET
from lyftr_server.signature import sign

from .browsing import PREPARE
from .conftest import Client, ServerFactory
from .process import RunningServer, message

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

# -- files


def linked(page: str) -> list[str]:
    """Return what the page loads."""
    return re.findall(r'(?:src|href)="(docs/[^"]+)"', page)


async def test_the_page_names_each_file_with_its_version(client: Client) -> None:
    page = (await client.get("/docs")).body.decode()
    urls = linked(page)
    assert [url.partition("?")[0] for url in urls] == [
        "docs/swagger-ui.css",
        "docs/swagger-ui.js",
        "docs/init.js",
    ]
    for url in urls:
        answer = await client.get(f"/{url}")
        assert answer.code == 200
        assert "immutable" in answer.headers["Cache-Control"]
        plain = await client.get("/" + url.partition("?")[0])
        assert plain.body == answer.body
        assert plain.headers["Cache-Control"] == "no-cache"
        stale = await client.get("/" + url.partition("?")[0] + "?v=other")
        assert stale.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "target, media_type",
    [
        ("/docs", "text/html"),
        ("/docs/init.js", "text/javascript"),
        ("/docs/swagger-ui.js", "text/javascript"),
        ("/docs/swagger-ui.css", "text/css"),
    ],
)
async def test_each_file_says_what_it_is(client: Client, target: str, media_type: str) -> None:
    answer = await client.get(target)
    assert answer.headers["Content-Type"] == f"{media_type}; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    head = await client.request("HEAD", target)
    assert head.code == 200
    assert int(head.headers["Content-Length"]) == len(answer.body)
    assert (await client.request("POST", target, b"")).code == 405


async def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere(client: Client) -> None:
    answer = await client.get("/docs")
    policy = dict(
        directive.split(" ", 1)
        for directive in answer.headers["Content-Security-Policy"].split("; ")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    page = answer.body.decode()
    assert "//" not in page
    assert "<style" not in page
    assert not re.search(r"<script(?![^>]*src=)", page)


async def test_it_is_swagger_ui_5(client: Client) -> None:
    script = (await client.get("/docs/swagger-ui.js")).body
    assert b"SwaggerUIBundle" in script
    (version,) = set(re.findall(rb'PACKAGE_VERSION:"([0-9.]+)"', script))
    assert version.startswith(b"5.")


async def test_the_package_that_holds_the_files_is_never_imported(client: Client) -> None:
    await client.get("/docs")
    await client.get(SwaggerScriptHandler.route)
    assert "offapi" not in sys.modules


def test_a_missing_package_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="no_such_package"):
        _asset("no_such_package", "swagger_bundle.js")


# -- in a browser


@dataclass
class Visit:
    """A page that is open, and what went wrong on it."""

    page: "Page"
    server: RunningServer
    troubles: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def operation(self, name: str) -> "Locator":
        """Open an operation and its "try it out". The events: a click waits for a still page."""
        operation = self.page.locator(f".opblock[id$=-{name}]")
        operation.locator(".opblock-summary-control").dispatch_event("click")
        operation.locator(".try-out__btn").dispatch_event("click")
        return operation

    def execute(self, operation: "Locator", path: str) -> Any:
        """Send the request; return the answer."""
        with self.page.expect_response(lambda answer: path in answer.url) as answer:
            operation.locator(".execute").click()
        operation.locator(".live-responses-table").wait_for()
        return answer.value

    def check(self) -> None:
        """Hold that nothing was reported, blocked, or asked of anybody else."""
        assert self.troubles == []
        assert self.page.evaluate("window.violations") == []
        assert [
            url for url in self.requested if not url.startswith((self.server.url, "data:"))
        ] == []


def visit(browser: "Browser", server: RunningServer) -> Visit:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    visit = Visit(page, server)
    page.on("console", lambda each: visit.troubles.append(f"{each.type}: {each.text}"))
    page.on("pageerror", lambda each: visit.troubles.append(str(each)))
    page.on("request", lambda each: visit.requested.append(each.url))
    page.add_init_script(PREPARE)
    page.goto(f"{server.url}/docs")
    page.locator(".opblock").first.wait_for()
    return visit


@pytest.mark.browser
def test_the_page_shows_every_operation_and_can_call_each(
    browser: "Browser", server_factory: ServerFactory
) -> None:
    # The examples are signed with this one; of a form there is no such example.
    keys = dict.fromkeys(("WHATSAPP_APP_SECRET", "WHATSAPP_VERIFY_TOKEN"), EXAMPLE_SECRET)
    visited = visit(browser, server_factory(secret=EXAMPLE_SECRET, **keys))
    assert visited.page.title() == "lyftr-server"
    shown = visited.page.locator(".opblock-summary-path").all_inner_texts()
    # The browser breaks long paths with a space of no width.
    assert {path.replace("\u200b", "") for path in shown} == set(document()["paths"])
    for methods in document()["paths"].values():
        for described in methods.values():
            # A stream has no end, and without ADMIN_TOKEN there is nothing to erase with.
            if described["operationId"] in ("followMessages", "receiveTwilio") or (
                described["tags"] == ["erasing"]
            ):
                continue
            operation = visited.operation(described["operationId"])
            assert visited.execute(operation, visited.server.url).status == 200
            operation.locator(".response-col_status", has_text="200").first.wait_for()
            # A page with all of them open is slow.
            operation.locator(".opblock-summary-control").dispatch_event("click")
    visited.page.locator(".models-control").click()
    visited.page.locator(".json-schema-2020-12").first.wait_for()
    visited.check()


ODD = """{"text" :"\\u00e9 é שלום 😀", "ts":"2025-01-15T10:00:00.50Z",

 "to": "+2","from":"+1",  "message_id":"odd spaces, order, escapes and scripts", "more":1.0}
"""


@pytest.mark.browser
def test_a_signed_message_is_sent_byte_for_byte(browser: "Browser", server: RunningServer) -> None:
    visited = visit(browser, server)
    operation = visited.operation("receiveMessage")
    answer = visited.execute(operation, "/webhook")
    assert answer.status == 200, "the example, with the signature of the example"

    operation.locator("textarea.body-param__text").fill(ODD)
    refused = visited.execute(operation, "/webhook")
    assert refused.status == 401
    # The browser reports each refusal by itself.
    assert "401" in visited.troubles.pop()

    signature = sign(server.secret.encode(), ODD.encode())
    operation.locator("tr[data-param-name=X-Signature] input").fill(signature)
    answer = visited.execute(operation, "/webhook")
    assert answer.request.post_data_buffer == ODD.encode()
    assert answer.status == 200

    listing = visited.execute(visited.operation("listMessages"), "/messages?").json()
    assert [row["message_id"] for row in listing["data"]] == ["m1", json.loads(ODD)["message_id"]]
    assert listing == server.get("/messages").json()
    visited.check()


@pytest.mark.browser
def test_a_reader_authorizes_with_the_token(
    browser: "Browser", server_factory: ServerFactory
) -> None:
    server = server_factory(READ_TOKEN="let-me-read")
    assert server.deliver(message()).status == 200
    visited = visit(browser, server)
    visited.page.locator("button.authorize").first.click()
    reading = visited.page.locator(".auth-container", has_text="readToken").first
    reading.locator("input").fill("let-me-read")
    reading.locator("button.authorize").click()
    reading.locator(".btn-done").click()
    answer = visited.execute(visited.operation("listMessages"), "/messages?")
    assert answer.status == 200
    assert answer.json()["total"] == 1
    visited.check()
