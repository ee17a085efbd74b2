"""The inspector in a real browser: what a person sees and does, by mouse and by keyboard alone."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sqlite3 import connect
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from lyftr_server.records import Message
from lyftr_server.store.sqlite import schema

from ..browsing import PREPARE
from ..conftest import ServerFactory
from ..process import RunningServer, message
from ..sources.senders import VARIABLES, WHATSAPP, whatsapp_body
from ..store.databases import insert

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

WIDE, NARROW = (1440, 900), (390, 844)
DEADLINE_SECONDS = 20.0
HOSTILE = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'


class Visit:
    """A page that is open, and what went wrong on it."""

    def __init__(
        self, browser: "Browser", server: RunningServer, size: tuple[int, int], scheme: str
    ) -> None:
        width, height = size
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
            permissions=["clipboard-read", "clipboard-write"],
            reduced_motion="reduce",
        )
        self.page: Page = self.context.new_page()
        self.server = server
        self.troubles: list[str] = []
        self.requested: list[str] = []
        self.page.on("console", lambda each: self.troubles.append(f"{each.type}: {each.text}"))
        self.page.on("pageerror", lambda each: self.troubles.append(str(each)))
        self.page.on("request", lambda each: self.requested.append(each.url))
        self.page.add_init_script(PREPARE)

    def open(self, query: str = "") -> "Visit":
        self.page.goto(f"{self.server.url}/inspector{query}")
        return self

    def live(self) -> "Visit":
        """Wait until what is stored from now on arrives by itself, and the first page is there."""
        self.page.locator(".live[data-state=live]").wait_for()
        self.until(lambda: "message" in self.page.locator(".total").inner_text())
        return self

    def texts(self) -> list[str]:
        """Return the texts of the rows in view, in their order."""
        rows = self.page.locator(".row")
        found = rows.evaluate_all(
            "rows => rows.map(row => [Number(row.dataset.index), "
            "row.querySelector('.text').textContent]).sort((a, b) => a[0] - b[0])"
        )
        return [text for _, text in found]

    def address(self) -> dict[str, str]:
        query = parse_qs(urlsplit(self.page.url).query)
        return {name: values[0] for name, values in query.items()}

    def focused(self) -> str:
        return str(
            self.page.evaluate(
                "(document.activeElement.getAttribute('aria-label')"
                " || document.activeElement.textContent || document.activeElement.id).trim()"
            )
        )

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.page.locator("body").inner_text()
            self.page.wait_for_timeout(20)

    def check(self) -> None:
        """Hold that nothing was reported, blocked, or asked of anybody else."""
        assert self.troubles == []
        assert self.page.evaluate("window.violations") == []
        assert [url for url in self.requested if not url.startswith(self.server.url)] == []


Open = Callable[..., Visit]


@pytest.fixture
def visit(browser: "Browser") -> Iterator[Open]:
    opened: list[Visit] = []

    def start(
        server: RunningServer,
        query: str = "",
        *,
        size: tuple[int, int] = WIDE,
        scheme: str = "light",
    ) -> Visit:
        opened.append(Visit(browser, server, size, scheme))
        return opened[-1].open(query)

    yield start
    for each in opened:
        each.context.close()


def deliver(server: RunningServer, *texts: str | None, **fields: Any) -> None:
    """Deliver a message for each text, each a second newer."""
    for text in texts:
        deliver.count += 1  # type: ignore[attr-defined]
        n = deliver.count  # type: ignore[attr-defined]
        ts = f"2025-01-15T10:{n // 60 % 60:02}:{n % 60:02}Z"
        given = message(f"m{n}") | {"text": text, "ts": ts} | fields
        assert server.deliver(given).status == 200


deliver.count = 0  # type: ignore[attr-defined]


def many(path: Path, n: int) -> None:
    """Make a database of `n` messages over the days before today."""
    now = datetime.now(UTC).replace(minute=30, second=0)
    rows = [
        Message(
            f"m{i:06}",
            f"+{i % 7 + 1}",
            "+99",
            (now - timedelta(minutes=i)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            f"text {i}",
        )
        for i in range(n)
    ]
    with closing(connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA synchronous = OFF")
        schema.migrate(db)
        for start in range(0, n, 1000):
            insert(db, rows[start : start + 1000])


# -- the walk of a person


def test_an_empty_server_says_what_to_do_and_then_shows_the_first_message(
    visit: Open, server: RunningServer
) -> None:
    visited = visit(server)
    visited.page.goto(server.url)
    assert visited.page.url == f"{server.url}/inspector", "a browser is sent there"
    visited.live()
    assert visited.page.locator(".state h2").inner_text() == "Nothing has arrived yet"
    deliver(server, "the first")
    visited.until(lambda: visited.texts() == ["the first"])
    assert visited.page.locator(".total").inner_text() == "1 message"
    assert visited.page.locator("#readiness").inner_text() == "Ready"
    assert visited.page.title() == "Messages · lyftr"
    visited.check()


def test_messages_arrive_and_a_pause_counts_what_came_meanwhile(
    visit: Open, server: RunningServer
) -> None:
    deliver(server, "one", "two")
    visited = visit(server).live()
    visited.until(lambda: visited.texts() == ["two", "one"])
    deliver(server, "three")
    visited.until(lambda: visited.texts() == ["three", "two", "one"])
    visited.page.get_by_role("button", name="Pause").click()
    deliver(server, "four", "five")
    visited.page.get_by_role("button", name="2 new").wait_for()
    assert visited.texts() == ["three", "two", "one"]
    visited.page.get_by_role("button", name="Resume").click()
    visited.until(lambda: visited.texts() == ["five", "four", "three", "two", "one"])
    # One that was sent earlier takes its place among the others.
    deliver(server, "early", ts="2025-01-01T00:00:00Z")
    visited.until(lambda: visited.texts()[-1] == "early")
    assert visited.page.locator(".total").inner_text() == "6 messages"
    visited.check()


def test_search_and_filters_work_as_one_types_and_a_link_shows_the_same(
    visit: Open, server: RunningServer
) -> None:
    deliver(server, "Straße", "Invoice 12", **{"from": "+911"})
    deliver(server, "invoice 13", **{"from": "+922"})
    visited = visit(server).live()
    visited.page.locator("#q").press_sequentially("INVOICE")
    visited.until(lambda: visited.texts() == ["invoice 13", "Invoice 12"])
    assert visited.address() == {"q": "INVOICE"}
    assert visited.page.locator("mark").all_inner_texts() == ["invoice", "Invoice"]
    assert visited.page.locator(".total").inner_text() == "2 messages match"
    visited.page.get_by_role("button", name="Filters").click()
    visited.page.get_by_label("From").fill("911")
    visited.until(lambda: visited.texts() == ["Invoice 12"])
    assert visited.address() == {"q": "INVOICE", "from": "+911"}
    # What arrives and does not fit stays away.
    visited.live()
    deliver(server, "invoice 14", **{"from": "+922"})
    deliver(server, "invoice 15", **{"from": "+911"})
    visited.until(lambda: visited.texts() == ["invoice 15", "Invoice 12"])
    same = visit(server, "?" + urlsplit(visited.page.url).query).live()
    same.until(lambda: same.texts() == ["invoice 15", "Invoice 12"])
    assert same.page.locator("#q").input_value() == "INVOICE"
    same.page.get_by_role("button", name="From +911").click()
    same.until(lambda: len(same.texts()) == 4)
    same.page.locator("#q").fill("nothing like this")
    same.page.get_by_role("heading", name="No message matches").wait_for()
    same.page.get_by_role("button", name="Clear filters").click()
    same.until(lambda: len(same.texts()) == 5)
    assert same.address() == {}
    visited.check()
    same.check()


def test_one_message_with_its_fields_and_its_json_to_copy(
    visit: Open, server: RunningServer
) -> None:
    deliver(server, "look at me", "another", **{"from": "+911"})
    visited = visit(server).live()
    visited.page.locator(".row", has_text="look at me").click()
    detail = visited.page.locator(".detail")
    detail.get_by_text("Stored").wait_for()
    assert detail.locator(".says").inner_text() == "look at me"
    shown = server.get("/messages").json()["data"][0]
    assert visited.address() == {"message": shown["message_id"]}
    detail.get_by_role("button", name="Copy JSON").click()
    visited.until(lambda: visited.page.evaluate("navigator.clipboard.readText()"))
    assert json.loads(visited.page.evaluate("navigator.clipboard.readText()")) == shown
    # Back closes it, and forward opens it again.
    visited.page.go_back()
    detail.wait_for(state="hidden")
    visited.page.go_forward()
    detail.wait_for()
    detail.get_by_role("button", name="Close the message").click()
    detail.wait_for(state="hidden")
    # A link to a message shows it, whether it is in the list or not.
    linked = visit(server, f"?q=another&message={shown['message_id']}").live()
    linked.until(lambda: linked.page.locator(".says").inner_text() == "look at me")
    linked.page.locator(".detail").get_by_role("button", name="+911").click()
    linked.until(lambda: linked.address() == {"q": "another", "from": "+911"})
    visited.check()
    linked.check()


def test_bars_and_senders_lead_to_their_messages(visit: Open, server: RunningServer) -> None:
    deliver(server, "at ten", ts="2025-01-15T10:20:00Z", **{"from": "+911"})
    deliver(server, "at noon", ts="2025-01-15T12:20:00Z", **{"from": "+922"})
    deliver(server, "at noon too", ts="2025-01-15T12:30:00Z", **{"from": "+922"})
    visited = visit(server).live()
    bars = visited.page.get_by_role("group", name="Messages over time").get_by_role("button")
    visited.until(lambda: bars.count() == 48)
    assert bars.last.get_attribute("aria-label") == "15 Jan 2025, 12:00 to 13:00: 2 messages"
    bars.nth(45).click()
    visited.until(lambda: visited.texts() == ["at ten"])
    assert visited.address() == {"since": "2025-01-15T10:00:00Z", "until": "2025-01-15T11:00:00Z"}
    visited.page.get_by_role("button", name="15 Jan 2025, 10:00 to 11:00. Remove").click()
    visited.until(lambda: len(visited.texts()) == 3)
    visited.page.get_by_role("button", name="Days").click()
    visited.until(lambda: bars.count() == 90)
    bars.last.click()
    visited.until(lambda: visited.address()["until"] == "2025-01-16T00:00:00Z")
    visited.page.get_by_role("button", name="All times").click()
    visited.until(lambda: visited.address() == {"by": "day"})
    visited.page.get_by_role("button", name="+922: 2 messages").click()
    visited.until(lambda: visited.texts() == ["at noon too", "at noon"])
    visited.check()


def test_the_overview_tells_how_the_server_does(visit: Open, server: RunningServer) -> None:
    deliver(server, "one", "two", **{"from": "+911"})
    server.deliver(b"{}", signature="0" * 64)
    visited = visit(server)
    visited.page.get_by_role("link", name="Overview").click()
    assert visited.address() == {"view": "overview"}
    page = visited.page.locator(".page")
    page.get_by_text("Queue for the next commit").wait_for()
    assert page.get_by_text("0 of 10,000").count() == 1
    assert page.locator(".tiles b").first.inner_text() == "2"
    assert page.locator("[data-result=created] b").inner_text() == "2"
    assert page.locator("[data-result=invalid_signature] b").inner_text() == "1"
    assert "ms" in page.locator(".quantiles dd").first.inner_text()
    page.get_by_role("button", name="+911: 2 messages").click()
    visited.until(lambda: visited.texts() == ["two", "one"])
    assert visited.address() == {"from": "+911"}
    visited.check()


def test_a_message_of_whatsapp_has_its_payload_and_what_came_of_it(
    visit: Open, server_factory: ServerFactory
) -> None:
    server = server_factory(**VARIABLES)

    def post(body: bytes) -> None:
        assert server.request("POST", WHATSAPP.route, body, WHATSAPP.sign(body)).status == 200

    post(WHATSAPP.body("wamid.text", "Hello"))
    status = {"id": "wamid.text", "status": "delivered", "timestamp": "1736935201"}
    post(whatsapp_body(statuses=[status]))
    visited = visit(server).live()
    visited.page.locator(".row").click()
    detail = visited.page.locator(".detail")
    detail.get_by_text("WhatsApp Cloud API").wait_for()
    detail.get_by_text("status.delivered").click()
    detail.get_by_text('"timestamp": "1736935201"').wait_for()
    detail.get_by_role("button", name="Copy Payload as it came").click()
    visited.until(lambda: visited.page.evaluate("navigator.clipboard.readText()"))
    copied = visited.page.evaluate("navigator.clipboard.readText()")
    assert copied.encode() == server.get("/messages/wamid.text/payload").body
    visited.check()


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_what_was_refused_is_shown_with_its_faults(
    visit: Open, server: RunningServer, size: tuple[int, int]
) -> None:
    visited = visit(server, "?view=refused", size=size)
    visited.page.get_by_role("heading", name="Nothing was refused").wait_for()
    deliver(server, "one", message_id="m1")
    assert server.deliver(message("m1") | {"text": HOSTILE}).status == 200
    assert server.deliver({"message_id": HOSTILE, "ts": "now"}).status == 422
    assert server.deliver(message("m2"), signature="0" * 64).status == 401
    visited.page.reload()
    rows = visited.page.locator(".refusal")
    visited.until(lambda: rows.count() == 2)
    rows.first.locator("summary").click()
    shown = rows.first.inner_text()
    assert "from is required" in shown
    assert HOSTILE in json.loads(rows.first.locator(".code code").inner_text())["message_id"]
    visited.page.get_by_role("button", name="Conflicts").click()
    visited.until(lambda: rows.count() == 1)
    rows.first.locator("summary").click()
    assert HOSTILE.replace('"', '\\"') in rows.first.locator(".code code").inner_text()
    (unsigned,) = visited.page.locator("tbody tr").all()
    assert "bytes" in unsigned.inner_text()
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    assert axe.run(visited.page).response["violations"] == []
    assert visited.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert visited.page.title() == "Refused · lyftr"
    visited.check()


# -- what others write is text


def test_hostile_text_is_text(visit: Open, server: RunningServer) -> None:
    deliver(server, HOSTILE, message_id=HOSTILE)
    visited = visit(server).live()
    visited.until(lambda: visited.texts() == [HOSTILE])
    visited.page.locator(".row").click()
    visited.page.locator(".detail").get_by_text("Stored").wait_for()
    assert visited.page.locator(".says").inner_text() == HOSTILE
    assert visited.page.locator(".id").inner_text() == HOSTILE
    visited.page.locator("#q").fill("<script>")
    visited.until(lambda: visited.page.locator("mark").count() > 0)
    assert visited.page.title() == "Messages · lyftr"
    assert visited.page.locator(".row img, .row script, .detail img").count() == 0
    visited.check()


@pytest.mark.parametrize("name", ["stream", "..", ".", "a/b?c#d%2F", "é 世界"])
def test_a_message_may_have_any_id(visit: Open, server: RunningServer, name: str) -> None:
    deliver(server, "found", message_id=name)
    visited = visit(server).live()
    visited.page.locator(".row").click()
    visited.until(lambda: visited.page.locator(".id").inner_text() == name)
    assert visited.page.locator(".detail .wrong").count() == 0
    visited.check()


# -- the token


def test_the_token_is_asked_for_once_and_kept_by_the_tab_alone(
    visit: Open, server_factory: ServerFactory
) -> None:
    server = server_factory(READ_TOKEN="let-me-read")
    deliver(server, "secret")
    visited = visit(server)
    token = visited.page.get_by_role("textbox", name="Token")
    token.fill("wrong")
    token.press("Enter")
    visited.page.get_by_text("That token is not the server’s.").wait_for()
    token.fill("let-me-read")
    visited.page.get_by_role("button", name="Open").click()
    visited.live()
    visited.until(lambda: visited.texts() == ["secret"])
    deliver(server, "live")
    visited.until(lambda: visited.texts() == ["live", "secret"])
    assert "let-me-read" not in visited.page.url
    assert visited.page.evaluate("localStorage.length") == 0
    assert visited.page.evaluate("document.cookie") == ""
    # Each refusal is reported by the browser itself.
    assert {each for each in visited.troubles if "401" not in each} == set()
    visited.page.reload()
    visited.live()
    assert not visited.page.locator("#token").is_visible()
    other = visit(server)
    other.page.get_by_role("textbox", name="Token").wait_for()


# -- the keyboard


def test_everything_can_be_done_by_keyboard_alone(visit: Open, server: RunningServer) -> None:
    deliver(server, "one", "two", "three")
    visited = visit(server).live()
    visited.until(lambda: len(visited.texts()) == 3)
    keys = visited.page.keyboard
    keys.press("Tab")
    assert visited.focused() == "Skip to the content"
    keys.press("/")
    assert visited.focused() == "Search in the text"
    seen = []
    for _ in range(12):
        keys.press("Tab")
        seen.append(visited.focused())
        if seen[-1] == "Messages, newest first":
            break
    assert "Filters" in seen
    assert "Pause" in seen
    assert sum("message" in name and "to" in name for name in seen) == 1, "the chart is one stop"
    active = "document.querySelector('.row.active .text').textContent"
    assert visited.page.evaluate(active) == "three"
    keys.press("ArrowDown")
    assert visited.page.evaluate(active) == "two"
    keys.press("Enter")
    visited.page.locator(".says", has_text="two").wait_for()
    keys.press("End")
    visited.page.locator(".says", has_text="one").wait_for()
    selected = visited.page.locator("[role=option][aria-selected=true]")
    assert selected.get_attribute("id") == visited.page.locator(".rows").get_attribute(
        "aria-activedescendant"
    )
    keys.press("Escape")
    visited.page.locator(".detail").wait_for(state="hidden")
    assert visited.focused() == "Messages, newest first"
    # The chart: arrows move, Enter filters.
    visited.page.locator(".bars [tabindex='0']").focus()
    keys.press("ArrowLeft")
    assert "09:00 to 10:00: 0 messages" in visited.focused()
    keys.press("End")
    keys.press("Enter")
    visited.until(lambda: visited.address().get("since") == "2025-01-15T10:00:00Z")
    visited.check()


# -- much, and failures


def test_a_hundred_thousand_messages_are_scrolled_with_few_elements(
    visit: Open, server_factory: ServerFactory, tmp_path: Path
) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    many(folder / "app.db", 100_000)
    server = server_factory(folder)
    visited = visit(server).live()
    visited.until(lambda: visited.page.locator(".total").inner_text() == "100,000 messages")
    scroller = visited.page.locator(".scroller")
    for _ in range(12):
        height = scroller.evaluate("box => box.scrollHeight")
        scroller.evaluate("box => box.scrollTop = box.scrollHeight")
        visited.until(lambda before=height: scroller.evaluate("box => box.scrollHeight") > before)
        assert visited.page.locator(".row").count() < 80
    assert visited.page.evaluate("document.querySelectorAll('*').length") < 1500
    first = visited.texts()[0]
    # What arrives above moves nothing.
    assert server.deliver(message("new") | {"ts": "2099-01-01T00:00:00Z"}).status == 200
    visited.page.get_by_role("button", name="1 new").wait_for()
    assert visited.texts()[0] == first
    visited.page.get_by_role("button", name="1 new").click()
    visited.until(lambda: visited.texts()[0] == "Hello")
    cursors = [url for url in visited.requested if "cursor=" in url]
    assert len(cursors) == len(set(cursors)) >= 12
    visited.check()


def test_a_restart_is_shown_and_nothing_is_missed(
    visit: Open, server_factory: ServerFactory, tmp_path: Path
) -> None:
    folder = tmp_path / "server"
    server = server_factory(folder)
    deliver(server, "before")
    visited = visit(server).live()
    visited.until(lambda: visited.texts() == ["before"])
    server.stop()
    visited.page.locator(".live[data-state=broken]").wait_for()
    again = server_factory(folder, PORT=str(server.port))
    deliver(again, "after")
    visited.until(lambda: visited.texts() == ["after", "before"])
    visited.page.locator(".live[data-state=live]").wait_for()
    # Only the connection that broke is reported, and by the browser itself.
    assert all("ERR_" in each for each in visited.troubles), visited.troubles


def test_what_the_server_refuses_is_said_in_its_words(visit: Open, server: RunningServer) -> None:
    deliver(server, "one")
    visited = visit(server, "?since=yesterday")
    visited.page.get_by_role("heading", name="The server refuses this filter").wait_for()
    assert "Since must" in visited.page.locator(".state p").inner_text()
    visited.page.get_by_role("button", name="Clear filters").click()
    visited.until(lambda: visited.texts() == ["one"])


# -- barriers


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_there_are_no_barriers(
    visit: Open, server: RunningServer, size: tuple[int, int], scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def hold(visited: Visit, what: str) -> None:
        found = axe.run(visited.page).response["violations"]
        problems = [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found]
        assert problems == [], what
        width = visited.page.evaluate("document.documentElement.scrollWidth")
        assert width <= size[0], f"{what} scrolls sideways"

    visited = visit(server, size=size, scheme=scheme).live()
    hold(visited, "empty")
    deliver(server, "Invoice", "שלום", None, "x" * 300, **{"from": "+919876543210"})
    visited.until(lambda: len(visited.texts()) == 4)
    hold(visited, "messages")
    visited.page.get_by_role("button", name="Filters").click()
    visited.page.locator("#q").fill("invoice")
    visited.until(lambda: visited.texts() == ["Invoice"])
    hold(visited, "filtered")
    visited.page.locator(".row").click()
    visited.page.locator(".detail").get_by_text("Stored").wait_for()
    hold(visited, "one message")
    visited.open("?q=nothing").live()
    visited.page.get_by_role("heading", name="No message matches").wait_for()
    hold(visited, "nothing found")
    visited.open("?view=overview")
    visited.page.get_by_text("Queue for the next commit").wait_for()
    hold(visited, "overview")
    visited.check()
