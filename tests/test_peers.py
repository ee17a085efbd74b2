"""Who asks, and under which name: proxies, the names of reads, and pages of other sites."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from lyftr_server.app import Application
from lyftr_server.config import Config
from lyftr_server.peers import Names, Proxies, names_of
from lyftr_server.signature import sign

from .conftest import Client, LogFile
from .process import SECRET, as_body, message

READS = (
    "/messages",
    "/messages/m1",
    "/messages.ndjson",
    "/messages/stream",
    "/stats",
    "/stats/timeline",
    "/events",
    "/events.ndjson",
    "/refused",
    "/refused.ndjson",
    "/metrics",
)
PROXIES = Proxies([ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")])


@pytest.mark.parametrize(
    "peer, forwarded_for, client",
    [
        pytest.param("10.0.0.1", "", "10.0.0.1", id="no header"),
        pytest.param("10.0.0.1", "192.0.2.1", "192.0.2.1", id="one hop"),
        pytest.param("192.0.2.9", "192.0.2.1", "192.0.2.9", id="a peer that is not trusted"),
        pytest.param("10.0.0.1", "192.0.2.66, 192.0.2.1", "192.0.2.1", id="an invention before it"),
        pytest.param("10.0.0.1", "192.0.2.1, 10.0.0.2", "192.0.2.1", id="two proxies"),
        pytest.param("10.0.0.1", "10.0.0.3,10.0.0.2", "10.0.0.3", id="all trusted"),
        pytest.param("10.0.0.1", "192.0.2.1:1234", "192.0.2.1", id="with a port"),
        pytest.param("10.0.0.1", "[2001:DB9::1]:1234", "2001:db9::1", id="IPv6 with a port"),
        pytest.param("2001:db8::1", "2001:db9::1", "2001:db9::1", id="IPv6"),
        pytest.param("10.0.0.1", "::ffff:192.0.2.1", "192.0.2.1", id="IPv4 in IPv6"),
        pytest.param("10.0.0.1", "192.0.2.1, unknown", "10.0.0.1", id="no address"),
        pytest.param("10.0.0.1", "192.0.2.1, unknown, 10.0.0.2", "10.0.0.2", id="none further on"),
        pytest.param("10.0.0.1", ",", "10.0.0.1", id="empty"),
        pytest.param("10.0.0.1", '"};\x1b[31m', "10.0.0.1", id="an injection"),
        pytest.param("10.0.0.1", "1," * 10_000, "10.0.0.1", id="very long"),
        pytest.param("", "192.0.2.1", "", id="a peer without an address"),
    ],
)
def test_the_client_is_the_nearest_hop_that_no_proxy_is(
    peer: str, forwarded_for: str, client: str
) -> None:
    assert PROXIES.client(peer, forwarded_for) == client


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "[::1]:80", ""])
def test_this_machine_has_names_of_its_own(host: str) -> None:
    assert names_of((), loopback=True, protected=False).allow(host)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "[::2]", ":1"]
)
def test_another_name_is_none_of_them(host: str) -> None:
    assert not names_of((), loopback=True, protected=False).allow(host)


def test_who_is_protected_or_open_to_all_serves_any_name_until_told() -> None:
    for loopback, protected in ((True, True), (False, True), (False, False)):
        assert names_of((), loopback, protected).allow("any.example")
        told = names_of(("inbox.example",), loopback, protected)
        assert told.allow("Inbox.example.:443")
        assert not told.allow("any.example")
        assert not told.allow("localhost")
    assert Names(("inbox.example",)).allow("inbox.example")


@pytest.fixture
def settings(settings: Config) -> Config:
    return replace(settings, allowed_hosts=(), trusted_proxies=(ip_network("127.0.0.1"),))


@pytest.mark.parametrize("target", [*READS, "/inspector"])
async def test_a_read_under_a_strangers_name_is_421(client: Client, target: str) -> None:
    answer = await client.get(target, {"Host": "evil.example:8000"})
    assert answer.code == 421
    assert answer.body.startswith(b'{"detail": ')
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("target", READS)
async def test_a_page_of_another_site_reads_nothing(client: Client, target: str) -> None:
    answer = await client.get(target, {"Sec-Fetch-Site": "cross-site"})
    assert answer.code == 403
    assert b"detail" in answer.body


@pytest.mark.parametrize("site", ["same-origin", "same-site", "none"])
async def test_our_own_page_and_its_reader_may_read(client: Client, site: str) -> None:
    assert (await client.get("/messages", {"Sec-Fetch-Site": site})).code == 200


async def test_deliveries_and_health_are_served_under_any_name(client: Client) -> None:
    body = as_body(message())
    headers = {
        "Host": "evil.example",
        "Sec-Fetch-Site": "cross-site",
        "X-Signature": sign(SECRET.encode(), body),
    }
    assert (await client.request("POST", "/webhook", body, headers)).code == 200
    for target in ("/health", "/health/live", "/health/ready", "/"):
        assert (await client.get(target, headers)).code == 200


@pytest.mark.parametrize(
    "target", [*READS, "/", "/health", "/nowhere", "/docs", "/openapi.json", "/webhook"]
)
async def test_every_answer_tells_browsers_what_not_to_do(client: Client, target: str) -> None:
    if target == "/messages/stream":
        answer = await client.request("HEAD", target)
    else:
        answer = await client.get(target)
    assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"]
    assert answer.headers.get_list("Cross-Origin-Resource-Policy") == ["same-origin"]
    (policy,) = answer.headers.get_list("Content-Security-Policy")
    assert "frame-ancestors 'none'" in policy
    assert (policy == "frame-ancestors 'none'") == (target != "/docs")


# -- what the log says of refusals


async def deliver(client: Client, body: bytes, headers: dict[str, str] | None = None) -> int:
    headers = {"X-Signature": sign(SECRET.encode(), body)} | (headers or {})
    return (await client.request("POST", "/webhook", body, headers)).code


async def test_lines_of_deliveries_have_the_client(client: Client, log_file: LogFile) -> None:
    await deliver(client, as_body(message()))
    await deliver(client, as_body(message()), {"X-Forwarded-For": "192.0.2.66, 192.0.2.1"})
    await deliver(client, b"{}", {"X-Signature": "", "X-Forwarded-For": "192.0.2.2"})
    await client.get("/messages")
    lines = log_file.read()
    assert [line.get("client") for line in lines] == ["127.0.0.1", "192.0.2.1", "192.0.2.2", None]


async def test_a_refused_delivery_says_where_and_why_but_no_value(
    client: Client, log_file: LogFile
) -> None:
    assert await deliver(client, as_body(message(ts="needle", text=5))) == 422
    (line,) = log_file.read()
    assert line["level"] == "WARNING"
    assert line["faults"] == [
        {"loc": "body.text", "type": "string_type"},
        {"loc": "body.ts", "type": "string_pattern_mismatch"},
    ]
    assert "needle" not in log_file.text()


async def test_a_refused_query_says_where_but_no_name_of_its_sender(
    client: Client, log_file: LogFile
) -> None:
    for target in ("/messages?limit=needle", "/stats?needle=1", "/messages/stream?needle=1"):
        assert (await client.get(target)).code == 422
    assert [(line["level"], line["faults"][0]["loc"]) for line in log_file.read()] == [
        ("WARNING", "query.limit"),
        ("WARNING", "query"),
        ("WARNING", "query"),
    ]
    assert "needle" not in log_file.text()


async def test_a_name_that_is_no_parameters_is_not_repeated(client: Client) -> None:
    for target in ("/messages", "/messages/stream"):
        answer = await client.get(f"{target}?%3Cneedle%3E=1")
        assert answer.code == 422
        assert b"needle" not in answer.body


@pytest.mark.parametrize(
    "path", ["/people/+12345", "/people/123", "/nowhere/9876543210", "/%39%38%37%36%35%34"]
)
async def test_a_number_in_a_path_is_not_logged(
    client: Client, log_file: LogFile, path: str
) -> None:
    await client.request("DELETE", path)
    (line,) = log_file.read()
    assert line["path"].endswith("/*")


# -- floods


async def test_a_flood_of_refusals_is_summed_up_and_all_else_is_logged(
    client: Client, app: Application, log_file: LogFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lyftr_server.floods.monotonic", lambda: 5.0)
    for n in range(110):
        await deliver(client, b"{}", {"X-Signature": ""})
        if n % 10 == 0:
            assert await deliver(client, as_body(message(f"m{n}"))) == 200
            assert await deliver(client, b"{}") == 422
    await client.get("/nowhere")
    app.floods.sum_up()
    app.floods.sum_up()  # nothing more to tell
    lines = log_file.read()
    assert len([line for line in lines if line["status"] == 401]) == 100
    assert len([line for line in lines if line["status"] in (200, 422)]) == 22
    assert app.metrics._results["invalid_signature"] == 110


async def test_what_was_left_out_is_told_once_a_second(
    client: Client, app: Application, caplog: pytest.LogCaptureFixture
) -> None:
    now = 7
    told = []
    caplog.set_level("WARNING")
    for _ in range(2):
        now += 1
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("lyftr_server.floods.monotonic", lambda now=now: now)
            for _ in range(103):
                await client.get("/nowhere")
            await deliver(client, b"{}", {"X-Signature": ""})
        app.floods.sum_up()
        (record,) = [each for each in caplog.records if each.msg == "refused_requests_summed_up"]
        told.append(record.event_fields)  # type: ignore[attr-defined]
        caplog.clear()
    assert told == [{"count": 4, "requests": {"404 unmatched": 3, "401 /webhook": 1}}] * 2


@pytest.mark.parametrize(
    "target", ["/", "/health", "/health/ready", "/stats", "/messages", "/nowhere", "/openapi.json"]
)
async def test_an_answer_in_json_ends_with_a_newline(client: Client, target: str) -> None:
    answer = await client.get(target)
    assert answer.body.endswith(b"}\n")


async def test_what_senders_get_has_no_newline(client: Client) -> None:
    answer = await client.request("POST", "/webhook", b"{}", {"X-Signature": "bad"})
    assert answer.body == b'{"detail": "invalid signature"}'
    body = as_body(message())
    answer = await client.request(
        "POST", "/webhook", body, {"X-Signature": sign(SECRET.encode(), body)}
    )
    assert answer.body == b'{"status": "ok"}'


async def test_browsers_find_an_icon(client: Client) -> None:
    answer = await client.get("/favicon.ico")
    assert (answer.code, answer.headers["Content-Type"]) == (200, "image/svg+xml; charset=utf-8")
    assert b"<svg" in answer.body
