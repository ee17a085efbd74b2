"""GET /messages: what a page holds, what it refuses, and the way from page to page."""

import asyncio
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from tornado.httpclient import HTTPResponse

from lyftr_server.app import Application
from lyftr_server.handlers import messages as handlers
from lyftr_server.records import Message
from lyftr_server.store import MessageStore, StoreError

from .conftest import Client, LogFile
from .process import RunningServer, message, native

pytestmark = pytest.mark.every_engine

T = "2025-01-15T10:00:00Z"


async def fill(store: MessageStore, *messages: dict[str, Any]) -> None:
    await asyncio.gather(*(store.insert(native(Message(*each.values()))) for each in messages))


async def listing(client: Client, target: str = "/messages") -> dict[str, Any]:
    answer = await client.get(target)
    assert answer.code == 200, answer.body
    content: dict[str, Any] = json.loads(answer.body)
    return content


async def ids(client: Client, target: str) -> list[str]:
    """Return the ids on a page; its total must be their number."""
    content = await listing(client, target)
    found = [row["message_id"] for row in content["data"]]
    assert content["total"] == len(found)
    return found


def links(answer: HTTPResponse) -> dict[str, str]:
    """Return the Link header's targets by relation (RFC 8288)."""
    parts = re.findall(r'<([^>]*)>; rel="(\w+)"', answer.headers.get("Link", ""))
    return {rel: target for target, rel in parts}


# -- what a page holds


async def test_an_empty_store_has_an_empty_page(client: Client) -> None:
    answer = await client.get("/messages")
    assert (answer.code, answer.headers["Content-Type"]) == (200, "application/json")
    expected = {"data": [], "total": 0, "limit": 50, "offset": 0, "next_cursor": None}
    assert json.loads(answer.body) == expected
    assert "Link" not in answer.headers


async def test_a_row_has_five_keys_and_comes_back_as_it_was_sent(
    client: Client, store: MessageStore
) -> None:
    sent = [
        message("m1", text="नमस्ते 🙂 \u202e\n", ts="2025-01-15T10:00:00.100Z"),
        message("m2", text="", ts="2025-01-15T10:00:00.1Z"),
        message("m3", text=None, ts="2025-01-15T10:00:00.123456789Z"),
    ]
    await fill(store, *sent)
    content = await listing(client)
    assert content["data"] == sent
    assert list(content["data"][0]) == ["message_id", "from", "to", "ts", "text"]
    assert list(content) == ["data", "total", "limit", "offset", "next_cursor"]


async def test_a_listing_is_private(client: Client) -> None:
    assert (await client.get("/messages")).headers["Cache-Control"] == "no-store"


async def test_order_is_by_instant_then_by_code_points_of_the_id(
    client: Client, store: MessageStore
) -> None:
    in_order = [
        message("z", ts="0001-01-01T00:00:00Z"),
        message("B", ts=T),
        message("a", ts="2025-01-15T10:00:00.000Z"),
        message("é", ts="2025-01-15T10:00:00.0Z"),
        message("\uffee", ts=T),
        message("😀", ts=T),
        message("A5", ts="2025-01-15T10:00:00.000000001Z"),
        message("A4", ts="2025-01-15T10:00:00.05Z"),
        message("A3", ts="2025-01-15T10:00:00.5Z"),
        message("A2", ts="2025-01-15T10:00:00.51Z"),
        message("A1", ts="2025-01-15T10:00:01Z"),
        message("A0", ts="9999-12-31T23:59:59.999999999Z"),
    ]
    await fill(store, *reversed(in_order))
    expected = [each["message_id"] for each in in_order]
    assert await ids(client, "/messages") == expected
    assert (await listing(client, "/messages?limit=5&offset=3"))["data"] == in_order[3:8]


async def test_a_message_is_in_the_listing_once_it_is_acknowledged(client: Client) -> None:
    for n in range(5):
        await client.deliver(message(f"m{n}"))
        assert (await listing(client))["total"] == n + 1


# -- limit and offset


async def test_limit_and_offset_cut_a_page_out_of_the_total(
    client: Client, store: MessageStore
) -> None:
    await fill(store, *(message(f"m{n:03}") for n in range(120)))
    for query, first, last in [
        ("", 0, 50),
        ("limit=1", 0, 1),
        ("limit=100", 0, 100),
        ("limit=100&offset=50", 50, 120),
        ("offset=119", 119, 120),
        ("offset=120", 120, 120),
        ("offset=9223372036854775807", 120, 120),
    ]:
        content = await listing(client, f"/messages?{query}")
        expected = [f"m{n:03}" for n in range(first, last)]
        assert [row["message_id"] for row in content["data"]] == expected
        assert content["total"] == 120
        asked = dict(part.split("=") for part in query.split("&") if part)
        assert content["limit"] == int(asked.get("limit", 50))
        assert content["offset"] == int(asked.get("offset", 0))


@pytest.mark.parametrize(
    "query, name",
    [
        pytest.param("limit=0", "limit", id="limit 0"),
        pytest.param("limit=101", "limit", id="limit 101"),
        pytest.param("limit=-1", "limit", id="limit -1"),
        pytest.param("limit=%EF%BC%95", "limit", id="limit in fullwidth digits"),
        pytest.param("limit=+5", "limit", id="limit with a plus"),
        pytest.param("limit=5.0", "limit", id="limit as a float"),
        pytest.param("limit=needle", "limit", id="limit in letters"),
        pytest.param("limit=", "limit", id="limit empty"),
        pytest.param("offset=-1", "offset", id="offset -1"),
        pytest.param("offset=9223372036854775808", "offset", id="offset of 2^63"),
        pytest.param("from=needle", "from", id="from in letters"),
        pytest.param("from=%2B91%0A", "from", id="from with a newline"),
        pytest.param("from_msisdn=needle", "from_msisdn", id="alias in letters"),
        pytest.param("since=2025-02-30T10:00:00Z", "since", id="since that does not exist"),
        pytest.param("q=" + "x" * 257, "q", id="q of 257 characters"),
        pytest.param("q=%00", "q", id="q with U+0000"),
        pytest.param("q=%FF", "q", id="q that is no UTF-8"),
        pytest.param("limit=1&limit=2", "limit", id="limit twice"),
        pytest.param("cursor=needle", "cursor", id="cursor made up"),
        pytest.param("cursor=" + "A" * 5000, "cursor", id="cursor over-long"),
        pytest.param("cursor=%C3%A9.%C3%A9", "cursor", id="cursor beyond ASCII"),
    ],
)
async def test_a_bad_parameter_is_422(client: Client, query: str, name: str) -> None:
    answer = await client.get(f"/messages?{query}")
    assert (answer.code, answer.headers["Content-Type"]) == (422, "application/json")
    content = json.loads(answer.body)
    assert [fault["loc"] for fault in content["detail"]] == [["query", name]]
    assert [list(fault) for fault in content["detail"]] == [["loc", "msg", "type"]]
    assert b"needle" not in answer.body


async def test_all_bad_parameters_are_told_at_once(client: Client) -> None:
    answer = await client.get("/messages?limit=0&offset=x&from=x&since=x")
    places = [fault["loc"][1] for fault in json.loads(answer.body)["detail"]]
    assert places == ["from", "limit", "offset", "since"]


# -- filters


@pytest.mark.parametrize("name", ["from", "from_msisdn"])
@pytest.mark.parametrize("value", ["+919876543210", "%2B919876543210", "919876543210"])
async def test_from_takes_a_raw_plus_an_encoded_one_or_none(
    client: Client, store: MessageStore, name: str, value: str
) -> None:
    await fill(
        store,
        message("m1"),
        message("m2", from_="+91987654321"),
        message("m3", from_="+9198765432100"),
        message("m4", to="+919876543210", from_="+1"),
    )
    assert await ids(client, f"/messages?{name}={value}") == ["m1"]


def test_curl_finds_by_a_raw_plus(server: RunningServer) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not here (Debian: curl)")
    server.deliver(message("m1"))
    server.deliver(message("m2", from_="+1"))
    found = subprocess.run(
        [curl, "-sS", "--max-time", "10", f"{server.url}/messages?from=+919876543210"],
        capture_output=True,
        check=True,
        timeout=15,
    )
    assert [row["message_id"] for row in json.loads(found.stdout)["data"]] == ["m1"]


async def test_since_keeps_instants_at_or_after_it(client: Client, store: MessageStore) -> None:
    await fill(
        store,
        message("m1", ts="2025-01-15T09:59:59.999999999Z"),
        message("m2", ts="2025-01-15T10:00:00Z"),
        message("m3", ts="2025-01-15T10:00:00.000Z"),
        message("m4", ts="2025-01-15T10:00:00.25Z"),
        message("m5", ts="2025-01-15T11:00:00Z"),
        message("m6", ts="2025-01-16T00:00:00Z"),
    )
    for since, first in [
        ("2025-01-15T10:00:00Z", 1),
        ("2025-01-15T10:00:00.0000Z", 1),
        ("2025-01-15T10:00:00.000000001Z", 3),
        ("2025-01-15T10:00:00.250Z", 3),
        ("2025-01-15T10:00:00.26Z", 4),
        ("0001-01-01T00:00:00Z", 0),
        ("2025-01-16T00:00:00.1Z", 6),
    ]:
        expected = [f"m{n + 1}" for n in range(first, 6)]
        assert await ids(client, f"/messages?since={since}") == expected, since
        assert await ids(client, f"/messages?since={since}&from=%2B919876543210") == expected


TEXTS = {
    "m0": "Hello World",
    "m1": "100% sure_thing",
    "m2": "STRASSE",
    "m3": "Straße",
    "m4": "ПРИВЕТ мир",
    "m5": "ΣΊΣΥΦΟΣ",
    "m6": "नमस्ते दुनिया",
    "m7": "back\\slash 'quote' \"double\"",
    "m8": "İstanbul",
    "m9": None,
    "mA": "",
    "mB": "a+b c",
}


@pytest.mark.parametrize(
    "q, expected",
    [
        pytest.param("hello", ["m0"], id="other case"),
        pytest.param("LO WO", ["m0"], id="across a space"),
        pytest.param("w", ["m0"], id="one letter"),
        pytest.param("%", ["m1"], id="percent"),
        pytest.param("_", ["m1"], id="underscore"),
        pytest.param("0% s", ["m1"], id="percent inside"),
        pytest.param("e_t", ["m1"], id="underscore inside"),
        pytest.param("straße", ["m2", "m3"], id="sharp s"),
        pytest.param("Strasse", ["m2", "m3"], id="ss"),
        pytest.param("ß", ["m2", "m3"], id="sharp s alone"),
        pytest.param("привет", ["m4"], id="Cyrillic"),
        pytest.param("МИР", ["m4"], id="Cyrillic capitals"),
        pytest.param("σίσυφος", ["m5"], id="final sigma"),
        pytest.param("दुनिया", ["m6"], id="Devanagari"),
        pytest.param("\\", ["m7"], id="backslash"),
        pytest.param("'quote' \"", ["m7"], id="quotes"),
        pytest.param("i\u0307stan", ["m8"], id="dotted capital i"),
        pytest.param("*", [], id="asterisk"),
        pytest.param("hello OR world", [], id="no operators"),
        pytest.param("a+b", ["mB"], id="plus"),
        pytest.param("nothing", [], id="nothing"),
    ],
)
async def test_q_is_a_substring_whatever_its_case(
    client: Client, store: MessageStore, q: str, expected: list[str]
) -> None:
    await fill(store, *(message(name, text=text) for name, text in TEXTS.items()))
    assert await ids(client, f"/messages?q={quote(q, safe='')}") == expected


async def test_a_raw_plus_in_q_is_a_space(client: Client, store: MessageStore) -> None:
    await fill(store, *(message(name, text=text) for name, text in TEXTS.items()))
    assert await ids(client, "/messages?q=hello+world") == ["m0"]


async def test_empty_filters_are_as_if_absent(client: Client, store: MessageStore) -> None:
    await fill(store, message("m1"), message("m2", text=None))
    assert await ids(client, "/messages?from=&from_msisdn=&since=&q=&cursor=") == ["m1", "m2"]


@pytest.mark.parametrize(
    "target",
    [
        "/messages?to=1",
        "/messages?orders=desc",
        "/messages?From=1",
        "/messages?_=1736935200",
        "/messages?x=%FF",
        "/messages.ndjson?since_=2025-01-15",
        "/messages.ndjson?limit=1",
        "/messages.ndjson?offset=1",
        "/messages.ndjson?cursor=",
        "/events.ndjson?limit=1",
        "/events.ndjson?cursor=x",
        "/refused.ndjson?limit=1",
        "/messages/m1?from=1",
        "/stats?since=2025-01-15",
    ],
)
async def test_a_parameter_that_is_not_known_is_422(
    client: Client, store: MessageStore, target: str
) -> None:
    await fill(store, message("m1"))
    answer = await client.get(target)
    (fault,) = json.loads(answer.body)["detail"]
    assert (answer.code, fault["type"]) == (422, "extra_forbidden")


async def test_filters_combine_with_and(client: Client, store: MessageStore) -> None:
    wanted = {"from_": "+1", "ts": "2025-01-15T12:00:00Z", "text": "Find me"}
    await fill(
        store,
        message("yes", **wanted),
        message("other sender", **(wanted | {"from_": "+2"})),
        message("too early", **(wanted | {"ts": "2025-01-15T11:59:59Z"})),
        message("other text", **(wanted | {"text": "Lose me"})),
    )
    target = "/messages?from=1&since=2025-01-15T12:00:00Z&q=find"
    assert await ids(client, target) == ["yes"]
    content = await listing(client, target + "&offset=1")
    assert (content["data"], content["total"]) == ([], 1)


# -- from page to page

FILTERS = [
    pytest.param("", 25, id="no filter"),
    pytest.param("&from=%2B1", 13, id="by sender"),
    pytest.param("&since=2025-01-15T10:00:05Z", 20, id="since"),
    pytest.param("&q=%26%25", 25, id="by text that must be escaped"),
    pytest.param("&from=1&since=2025-01-15T10:00:05Z&q=x", 10, id="by all"),
]


async def fill_pages(store: MessageStore) -> None:
    await fill(
        store,
        *(
            message(f"m{n:02}", from_=f"+{1 + n % 2}", ts=f"2025-01-15T10:00:{n:02}Z", text="x &%")
            for n in range(25)
        ),
    )


@pytest.mark.parametrize("start", ["", "&offset=0"], ids=["by cursor", "by offset"])
@pytest.mark.parametrize("filters, total", FILTERS)
async def test_next_leads_to_every_row_once_and_prev_back(
    client: Client, store: MessageStore, filters: str, total: int, start: str
) -> None:
    await fill_pages(store)
    target: str | None = f"/messages?limit=4{filters}{start}"
    pages: list[list[str]] = []
    while target is not None:
        answer = await client.get(target)
        content = json.loads(answer.body)
        pages.append([row["message_id"] for row in content["data"]])
        assert (content["total"], content["limit"]) == (total, 4)
        target = links(answer).get("next")
        assert (content["next_cursor"] is None) == (target is None)
        assert target is None or ("cursor=" in target) == (not start)
    everything = [name for page in pages for name in page]
    assert everything == sorted(set(everything))
    assert len(everything) == total
    # And back again, from the last page to the first.
    for page in reversed(pages[:-1]):
        answer = await client.get(links(answer)["prev"])
        assert [row["message_id"] for row in json.loads(answer.body)["data"]] == page
    assert "prev" not in links(answer)


async def test_next_cursor_goes_on_from_an_offset(client: Client, store: MessageStore) -> None:
    await fill_pages(store)
    first = await listing(client, "/messages?limit=10&offset=5")
    second = await listing(client, f"/messages?limit=100&cursor={first['next_cursor']}")
    assert [row["message_id"] for row in second["data"]] == [f"m{n:02}" for n in range(15, 25)]
    assert second["next_cursor"] is None


async def test_a_cursor_is_not_thrown_off_by_new_rows(client: Client, store: MessageStore) -> None:
    await fill_pages(store)
    first = await listing(client, "/messages?limit=10")
    await fill(store, message("early", ts="2024-01-01T00:00:00Z", from_="+1", text="x"))
    second = await listing(client, f"/messages?limit=10&cursor={first['next_cursor']}")
    assert [row["message_id"] for row in second["data"]] == [f"m{n:02}" for n in range(10, 20)]


@pytest.mark.parametrize(
    "filters",
    [
        pytest.param("from=%2B1", id="another sender"),
        pytest.param("q=x", id="another text"),
        pytest.param("since=2025-01-15T10:00:05Z", id="another since"),
    ],
)
async def test_a_cursor_goes_with_its_own_filters_only(
    client: Client, store: MessageStore, filters: str
) -> None:
    await fill_pages(store)
    cursor = (await listing(client, "/messages?limit=4"))["next_cursor"]
    answer = await client.get(f"/messages?{filters}&cursor={cursor}")
    assert answer.code == 422
    assert json.loads(answer.body)["detail"][0]["loc"] == ["query", "cursor"]


async def test_a_cursor_that_was_changed_is_refused(client: Client, store: MessageStore) -> None:
    await fill_pages(store)
    cursor = (await listing(client, "/messages?limit=4"))["next_cursor"]
    for changed in (cursor[:-1], cursor + "0", "A" + cursor, cursor.swapcase(), "." + cursor):
        assert (await client.get(f"/messages?cursor={changed}")).code == 422


async def test_a_cursor_does_not_go_with_an_offset(client: Client, store: MessageStore) -> None:
    await fill_pages(store)
    cursor = (await listing(client, "/messages?limit=4"))["next_cursor"]
    assert (await client.get(f"/messages?cursor={cursor}&offset=1")).code == 422


# -- READ_TOKEN

TOKEN = pytest.mark.parametrize("settings", [{"read_token": "s3cret"}], indirect=True)
READS = ["/messages", "/messages/m1", "/stats", "/stats/timeline", "/messages.ndjson"]


@TOKEN
@pytest.mark.parametrize("target", READS)
@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="none"),
        pytest.param({"Authorization": "Bearer wrong"}, id="wrong"),
        pytest.param({"Authorization": "Bearer s3cret2"}, id="longer"),
        pytest.param({"Authorization": "Bearer "}, id="empty"),
        pytest.param({"Authorization": "Basic s3cret"}, id="another scheme"),
        pytest.param({"Authorization": "s3cret"}, id="no scheme"),
        pytest.param({"Authorization": "Bearer tökén"}, id="beyond ASCII"),
    ],
)
async def test_without_the_token_nothing_is_read(
    client: Client, store: MessageStore, target: str, given: dict[str, str]
) -> None:
    await fill(store, message("m1"))
    answer = await client.get(target, given)
    assert (answer.code, answer.headers["Content-Type"]) == (401, "application/json")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert list(json.loads(answer.body)) == ["detail"]


@TOKEN
@pytest.mark.parametrize("target", READS)
async def test_with_the_token_everything_is_read(
    client: Client, store: MessageStore, target: str
) -> None:
    await fill(store, message("m1"))
    for scheme in ("Bearer", "bearer"):
        assert (await client.get(target, {"Authorization": f"{scheme} s3cret"})).code == 200


@TOKEN
async def test_the_token_is_for_reads_only(client: Client) -> None:
    assert (await client.deliver(message())).code == 200
    for target in ("/health", "/health/ready", "/metrics", "/"):
        assert (await client.get(target)).code == 200


@TOKEN
async def test_the_token_comes_before_the_parameters(client: Client) -> None:
    assert (await client.get("/messages?limit=0")).code == 401


# -- one message


@pytest.mark.parametrize("name", ["m1", "with space", "a/b", "नमस्ते", "100%", "?", "..", "export "])
async def test_one_message_by_its_id(client: Client, store: MessageStore, name: str) -> None:
    await fill(store, message(name))
    answer = await client.get(f"/messages/{quote(name, safe='').replace('.', '%2E')}")
    found = json.loads(answer.body)
    received_at = datetime.fromisoformat(found.pop("received_at"))
    assert (answer.code, found) == (200, message(name) | {"source": "native"})
    assert abs((datetime.now(UTC) - received_at).total_seconds()) < 3600


async def test_a_message_that_is_not_there_is_404(client: Client, log_file: LogFile) -> None:
    answer = await client.get("/messages/+919876543210")
    assert (answer.code, list(json.loads(answer.body))) == (404, ["detail"])
    assert "9876543210" not in log_file.text()


# -- when the store cannot answer


@pytest.mark.parametrize("target, method", [("/messages", "page"), ("/stats", "stats")])
async def test_a_store_that_cannot_read_is_503(
    client: Client, app: Application, monkeypatch: pytest.MonkeyPatch, target: str, method: str
) -> None:
    async def fail(*_: object) -> None:
        raise StoreError("needle")

    monkeypatch.setattr(app.store, method, fail)
    answer = await client.get(target)
    assert (answer.code, list(json.loads(answer.body))) == (503, ["detail"])
    assert int(answer.headers["Retry-After"]) >= 1
    assert b"needle" not in answer.body


# -- through the real process


def test_the_real_process_pages_through_everything(server: RunningServer) -> None:
    sent = [message(f"m{n:02}", text=f"Nº {n} – grüße") for n in range(12)]
    for each in sent:
        server.deliver(each)
    target: str | None = f"/messages?limit=5&q={quote('GRÜSSE')}"
    found: list[Any] = []
    while target:
        answer = server.get(target)
        found += answer.json()["data"]
        match = re.search(r'<([^>]+)>; rel="next"', answer.headers.get("Link", ""))
        target = match and match[1]
    assert found == sent


async def test_a_cursor_beside_an_offset_of_nothing_leads_on_by_cursor(
    client: Client, store: MessageStore
) -> None:
    await fill_pages(store)
    cursor = (await listing(client, "/messages?limit=4"))["next_cursor"]
    answer = await client.get(f"/messages?limit=4&offset=0&cursor={cursor}")
    assert "cursor=" in links(answer)["next"]
    assert (
        json.loads((await client.get(links(answer)["next"])).body)["data"][0]["message_id"] == "m08"
    )


async def test_the_page_before_one_beyond_the_end_is_the_last(
    client: Client, store: MessageStore
) -> None:
    await fill_pages(store)
    answer = await client.get("/messages?limit=4&offset=1000")
    back = await client.get(links(answer)["prev"])
    assert [row["message_id"] for row in json.loads(back.body)["data"]] == [
        *("m21", "m22", "m23", "m24")
    ]


# -- the other orders, and times


async def test_the_newest_come_first_and_links_keep_the_order(
    client: Client, store: MessageStore
) -> None:
    rows = [message(f"m{n}", ts=f"2025-01-15T10:00:0{n}Z") for n in range(5)]
    await fill(store, *rows)
    target = "/messages?order=desc&limit=2&until=2025-01-15T10:00:04Z&since=2025-01-15"
    seen: list[str] = []
    while target:
        answer = await client.get(target)
        content = json.loads(answer.body)
        assert content["total"] == 4
        seen += [row["message_id"] for row in content["data"]]
        header = answer.headers.get("Link", "")
        links = {rel: link for link, rel in re.findall('<([^>]+)>; rel="(.*?)"', header)}
        target = links.get("next", "")
    assert seen == ["m3", "m2", "m1", "m0"]
    back = json.loads((await client.get(links["prev"])).body)
    assert [row["message_id"] for row in back["data"]] == ["m3", "m2"]
    exported = (await client.get("/messages.ndjson?order=desc&since=2025-01-15T10:00:03Z")).body
    assert [json.loads(line)["message_id"] for line in exported.splitlines()] == ["m4", "m3"]
    # A cursor belongs to its order.
    cursor = (await listing(client, "/messages?order=desc&limit=1"))["next_cursor"]
    assert (await client.get(f"/messages?limit=1&cursor={cursor}")).code == 422


async def test_the_order_of_storing_can_be_followed_for_ever(
    client: Client, store: MessageStore
) -> None:
    await fill(store, message("late", ts="2025-01-16T00:00:00Z"))
    await fill(store, message("early", ts="2025-01-15T00:00:00Z"))
    first = await listing(client, "/messages?order=stored")
    assert [row["message_id"] for row in first["data"]] == ["late", "early"]
    place = first["next_cursor"]
    nothing = await listing(client, f"/messages?order=stored&cursor={place}")
    assert (nothing["data"], nothing["next_cursor"], nothing["total"]) == ([], place, 2)
    await fill(store, message("earliest", ts="2025-01-14T00:00:00Z"))
    more = await listing(client, f"/messages?order=stored&cursor={place}")
    assert [row["message_id"] for row in more["data"]] == ["earliest"]
    exported = (await client.get("/messages.ndjson?order=stored")).body
    names = [json.loads(line)["message_id"] for line in exported.splitlines()]
    assert names == ["late", "early", "earliest"]
    for refused in ("offset=1", "cursor=x", "cursor=999"):
        assert (await client.get(f"/messages?order=stored&{refused}")).code == 422


async def test_a_timeline_counts_by_hour_and_day(client: Client, store: MessageStore) -> None:
    assert json.loads((await client.get("/stats/timeline")).body) == {"by": "hour", "data": []}
    await fill(store, message("m1", ts="2025-01-15T10:59:59Z"))
    await fill(store, message("m2", ts="2025-01-15T12:00:00Z"))
    hours = json.loads((await client.get("/stats/timeline")).body)["data"]
    assert len(hours) == 48
    assert [each["count"] for each in hours[-3:]] == [1, 0, 1]
    assert hours[-1]["start"] == "2025-01-15T12:00:00Z"
    days = json.loads((await client.get("/stats/timeline?by=day&since=2025-01-14")).body)
    assert days == {
        "by": "day",
        "data": [
            {"start": "2025-01-14T00:00:00Z", "count": 0},
            {"start": "2025-01-15T00:00:00Z", "count": 2},
        ],
    }
    for refused in ("by=week", "since=x", "limit=1", "since=2000-01-01"):
        assert (await client.get(f"/stats/timeline?{refused}")).code == 422


async def test_one_client_has_few_reads_waiting(
    client: Client, store: MessageStore, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = asyncio.Event()
    waiting = 0

    async def slow() -> dict[str, Any]:
        nonlocal waiting
        waiting += 1
        await let_go.wait()
        return {}

    monkeypatch.setattr(store, "stats", slow)
    monkeypatch.setattr(handlers, "WAITING_READS", 4)  # Tornado's client makes ten at a time
    first = [asyncio.create_task(client.get("/stats")) for _ in range(4)]
    async with asyncio.timeout(10):
        while waiting < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    refused = await client.get("/messages")
    assert (refused.code, refused.headers["Retry-After"]) == (503, "1")
    assert (await client.get("/health/ready")).code == 200
    assert (await client.deliver(message())).code == 200
    app.reads["192.0.2.1"] += 4  # another's are no hindrance
    let_go.set()
    assert {answer.code for answer in await asyncio.gather(*first)} == {200}
    assert (await client.get("/messages")).code == 200
    assert app.reads.keys() == {"192.0.2.1"}
