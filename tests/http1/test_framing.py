"""Where one request ends and the next begins, and in what order they are answered."""

import json
import random
import time
from itertools import pairwise

import pytest

from ..process import message
from .conftest import Target, wait_until
from .raw import Raw, bytewise, chunked, request, split

LIVE = request()
OK = b'{"status": "ok"}\n'


def test_a_connection_serves_one_request_after_the_other(target: Target) -> None:
    with target.raw() as raw:
        for _ in range(3):
            answer = raw.send(LIVE).answer()
            assert (answer.status, answer.body, answer.header("Connection")) == (200, OK, None)
        assert raw.silent(0.1)


def test_every_answer_has_the_usual_headers(target: Target) -> None:
    with target.raw() as raw:
        answer = raw.send(request(headers={"X-Request-ID": "mine-1"})).answer()
    assert answer.header("Server") == "lyftr-server"
    assert answer.header("Content-Type") == "application/json"
    assert answer.header("Content-Length") == str(len(OK))
    assert answer.header("X-Request-ID") == "mine-1"
    date = answer.header("Date")
    assert date is not None
    assert abs(time.time() - time.mktime(time.strptime(date, "%a, %d %b %Y %H:%M:%S GMT"))) < 100000


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_head_is_get_without_the_body(target: Target, method: str) -> None:
    with target.raw() as raw:
        for path in ("/", "/health", "/messages", "/stats"):
            whole = raw.send(request("GET", path)).answer()
            bare = raw.send(request("HEAD", path)).answer("HEAD")
            assert (bare.status, bare.body) == (whole.status, b"")
            assert bare.header("Content-Length") == whole.header("Content-Length")
            assert bare.header("Content-Type") == whole.header("Content-Type")


def test_head_of_nothing_and_of_a_refusal_have_no_body(target: Target) -> None:
    with target.raw() as raw:
        assert raw.send(request("HEAD", "/nowhere")).answer("HEAD").status == 404
        assert raw.send(request("HEAD", "/webhook")).answer("HEAD").status == 405
        raw.send(request("HEAD", "/", {"Transfer-Encoding": "gzip"}))
        assert raw.answer("HEAD").status == 501
        assert raw.at_end()


# -- pipelining


def test_pipelined_requests_are_answered_in_their_order(target: Target) -> None:
    ids = [f"pipe-{number}" for number in range(300)]
    kinds = [
        ("GET", "/health/live", 200),
        ("HEAD", "/stats", 200),
        ("GET", "/nowhere", 404),
        ("DELETE", "/messages", 405),
        ("GET", "/messages?limit=0", 422),
        ("POST", "/webhook", 401),
    ]
    sequence = [kinds[number % len(kinds)] for number in range(len(ids))]
    everything = b"".join(
        request(method, path, {"X-Request-ID": each}, b"{}" if method == "POST" else b"")
        for each, (method, path, _) in zip(ids, sequence, strict=True)
    )
    with target.raw() as raw:
        raw.send(everything)
        for each, (method, _, status) in zip(ids, sequence, strict=True):
            answer = raw.answer(method)
            assert (answer.header("X-Request-ID"), answer.status) == (each, status)
        assert raw.silent(0.05)


def test_pipelined_deliveries_are_all_stored(target: Target) -> None:
    before = target.stored()
    with target.raw() as raw:
        raw.send(b"".join(target.delivery(message(f"pipelined-{n}")) for n in range(200)))
        assert [answer.status for answer in raw.answers(200)] == [200] * 200
    assert target.stored() == before + 200


def test_a_head_that_arrives_after_much_else_is_not_too_large(target: Target) -> None:
    # All of it comes in one read, the last request only in part.
    with target.raw() as raw:
        raw.send(LIVE * 1500 + LIVE[:-2])
        assert all(answer.status == 200 for answer in raw.answers(1500))
        assert raw.send(LIVE[-2:]).answer().status == 200


def test_thousands_of_pipelined_requests_are_answered(target: Target) -> None:
    tiny = b"GET / HTTP/1.1\r\nHost:a\r\n\r\n"
    with target.raw() as raw:
        raw.send(tiny * 12000).end_sending()
        assert all(answer.status == 200 for answer in raw.answers(12000))
        assert raw.at_end()


@pytest.mark.parametrize(
    "broken, status",
    [
        pytest.param(b"NONSENSE\r\n\r\n", 400, id="malformed"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="without-host"),
        pytest.param(request("POST", "/", {"Transfer-Encoding": "gzip"}), 501, id="coding"),
        pytest.param(request(version="2.0"), 505, id="version"),
        pytest.param(request(headers={"Expect": "more"}), 417, id="expectation"),
        pytest.param(request(headers={"A": "b" * 40000}), 431, id="head"),
        pytest.param(request(headers={"Connection": "close"}), 200, id="close"),
        pytest.param(
            request("POST", "/webhook", {"Content-Length": "99999999"}), 413, id="too-large"
        ),
    ],
)
@pytest.mark.parametrize("before", [0, 1, 3, 50])
def test_nothing_is_served_after_a_request_that_ends_the_connection(
    target: Target, broken: bytes, status: int, before: int
) -> None:
    stored, mark = target.stored(), target.mark()
    with target.raw() as raw:
        raw.send(LIVE * before + broken + target.delivery(message(f"after-{status}")) + LIVE)
        assert [answer.status for answer in raw.answers(before)] == [200] * before
        answer = raw.answer()
        assert (answer.status, answer.closes) == (status, True)
        assert raw.end_sending().at_end()
    target.settle()
    assert target.stored() == stored
    lines = [line for line in target.lines_since(mark) if line["path"] != "/metrics"]
    statuses = [line["status"] for line in lines]
    # What was whole before a request without Host was refused is over, and nobody's secret.
    dropped = statuses.count(499)
    assert dropped == 0 or (dropped == 2 and b"Host" not in broken)
    assert sorted(statuses) == sorted([200] * before + [status] + [499] * dropped)


def test_the_refusal_of_a_request_waits_for_its_turn(target: Target) -> None:
    # The webhook's answer waits for the disk, the refusal behind it must not overtake it.
    with target.raw() as raw:
        raw.send(target.delivery(message("in-turn")) + b"NONSENSE\r\n\r\n")
        assert raw.answer().status == 200
        assert raw.answer().status == 400
        assert raw.at_end()


# -- the versions and their connections


def test_http_1_0_closes_unless_asked_to_keep_alive(target: Target) -> None:
    with target.raw() as raw:
        answer = raw.send(request(version="1.0")).answer()
        assert (answer.status, answer.closes) == (200, True)
        assert raw.at_end()
    with target.raw() as raw:
        for _ in range(3):
            answer = raw.send(request(version="1.0", headers={"Connection": "keep-alive"})).answer()
            assert (answer.status, answer.header("Connection")) == (200, "keep-alive")
        answer = raw.send(request(version="1.0")).answer()
        assert answer.closes
        assert raw.at_end()


def test_http_1_0_closes_when_close_is_among_its_options(target: Target) -> None:
    for options in ("keep-alive, close", "Close,keep-alive"):
        with target.raw() as raw:
            answer = raw.send(request(version="1.0", headers={"Connection": options})).answer()
            assert (answer.status, answer.closes) == (200, True)
            assert raw.at_end()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"HEAD / HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n", id="a broken header"),
        pytest.param(b"HEAD /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", id="a broken target"),
        pytest.param(b"HEAD / HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(b"HEAD / HTTP/2.0\r\nHost: a\r\n\r\n", id="a version"),
    ],
)
def test_a_head_that_is_broken_is_answered_without_a_body(target: Target, data: bytes) -> None:
    mark = target.mark()
    for pieces in ([data], bytewise(data)):
        with target.raw() as raw:
            answer = raw.send_in(pieces, 0.0001 if len(pieces) > 1 else 0).answer("HEAD")
            assert answer.status in (400, 505)
            assert int(answer.header("Content-Length") or 0) > 0
            assert raw.end_sending().at_end()
    target.settle()
    lines = [line for line in target.lines_since(mark) if line["path"] != "/metrics"]
    assert [line["method"] for line in lines] == ["HEAD", "HEAD"]


def test_a_method_may_begin_in_what_ended_the_request_before(target: Target) -> None:
    data = request("POST", "/webhook", {"X-Signature": "0" * 64}, b"a body") + LIVE[:1]
    with target.raw() as raw:
        raw.send_in([data, LIVE[1:2], LIVE[2:3], LIVE[3:]], 0.02)
        assert [raw.answer().status for _ in range(2)] == [401, 200]
    target.settle()


@pytest.mark.parametrize("method", ["BREW", "post", "POSTX", "P", "*~", "PLAY", "PRI", "X" * 64])
def test_a_method_that_nobody_knows_is_refused_as_any_other(target: Target, method: str) -> None:
    mark = target.mark()
    data = request(method, "/webhook", {"X-Request-ID": "mine"}, b"a body") + LIVE
    for pieces in ([data], bytewise(data), [b"\r\n" + data]):
        with target.raw() as raw:
            answer = raw.send_in(pieces, 0.0001 if len(pieces) > 1 else 0).answer()
            assert (answer.status, answer.header("Allow")) == (405, "POST")
            assert (answer.header("X-Request-ID"), answer.closes) == ("mine", False)
            assert raw.answer().status == 200
    with target.raw() as raw:
        assert raw.send(request(method, "/nowhere")).answer().status == 404
    target.settle()
    lines = [line for line in target.lines_since(mark) if line["path"] == "/webhook"]
    assert [(line["method"], line["status"]) for line in lines] == [(method, 405)] * 3
    name = 'http_requests_total{method="OTHER",path="/webhook",status="405"}'
    assert target.sample(name) >= 3


@pytest.mark.parametrize(
    "data, status",
    [
        pytest.param(request("POST", "/messages/m1", {"Expect": "x"}), 417, id="expectation"),
        pytest.param(request("GET", "/messages/m1", host="a b"), 400, id="host"),
        pytest.param(request("GET", "/messages/m1", version="2.0"), 505, id="version"),
        pytest.param(
            request("GET", "/messages/m1", {"Transfer-Encoding": "gzip"}), 501, id="coding"
        ),
        pytest.param(request("GET", "/messages/m1", {"A": "b" * 40000}), 431, id="head"),
    ],
)
def test_a_refusal_that_no_handler_gave_is_told_as_any_other(
    target: Target, data: bytes, status: int
) -> None:
    mark = target.mark()
    name = f'path="/messages/{{message_id}}",status="{status}"'
    before = {key: value for key, value in target.samples().items() if name in key}
    data = data.replace(b"\r\n", b"\r\nX-Request-ID: mine-1\r\n", 1)
    with target.raw() as raw:
        answer = raw.send(data).answer()
    assert (answer.status, answer.header("X-Request-ID")) == (status, "mine-1")
    assert answer.header("Content-Type") == "application/json"
    assert set(json.loads(answer.body)) == {"detail"}
    target.settle()
    (line,) = [line for line in target.lines_since(mark) if line["path"] != "/metrics"]
    assert (line["status"], line["request_id"], line["path"]) == (status, "mine-1", "/messages/m1")
    after = {key: value for key, value in target.samples().items() if name in key}
    assert sum(after.values()) == sum(before.values()) + 1


MINE = b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: mine\r\n"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(MINE + b"no colon\r\n\r\n", id="the line behind it is broken"),
        pytest.param(MINE + b"A : b\r\n\r\n", id="a space before the colon"),
        pytest.param(MINE + b"Content-Length: x\r\n\r\n", id="a broken length"),
        pytest.param(MINE + b"A: b\r\n" * 101 + b"\r\n", id="too many fields"),
        pytest.param(b"\r\n\r\n" + MINE + b"A\r\n\r\n", id="empty lines before"),
    ],
)
def test_a_request_whose_head_is_broken_keeps_its_id(target: Target, data: bytes) -> None:
    for pieces in ([data], bytewise(data), [data[:60], data[60:]]):
        with target.raw() as raw:
            answer = raw.send_in(pieces, 0.0001 if len(pieces) > 2 else 0).answer()
            assert answer.status in (400, 431)
            assert answer.header("X-Request-ID") == "mine"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(MINE + b"\r\nGET / HTTP/1.1\r\nno colon\r\n\r\n", id="of the request before"),
        pytest.param(
            b"GET / HTTP/1.1\r\nno colon\r\n\r\nX-Request-ID: mine\r\n\r\n", id="of a body"
        ),
    ],
)
def test_a_broken_request_takes_no_id_that_is_not_its_own(target: Target, data: bytes) -> None:
    with target.raw() as raw:
        answers = raw.send(data).answers(data.count(b" HTTP/"))
    assert answers[-1].status == 400
    assert answers[-1].header("X-Request-ID") != "mine"


def test_what_waits_behind_a_bad_host_is_told(target: Target) -> None:
    mark = target.mark()
    later = target.delivery(message("behind-a-bad-host")) + request("GET", "/stats")
    with target.raw() as raw:
        raw.send(LIVE + request(host="a b") + later)
        assert [answer.status for answer in raw.answers(2)] == [200, 400]
        assert raw.end_sending().at_end()
    target.settle()
    lines = [line for line in target.lines_since(mark) if line["path"] in ("/webhook", "/stats")]
    assert [(line["status"], line.get("result")) for line in lines] == [
        (499, "aborted"),
        (499, None),
    ]


def test_http_1_0_needs_no_host(target: Target) -> None:
    with target.raw() as raw:
        assert raw.send(request(version="1.0", host=None)).answer().status == 200


@pytest.mark.parametrize("value", ["close", "Close", "keep-alive, close", "close, x"])
def test_connection_close_is_obeyed(target: Target, value: str) -> None:
    with target.raw() as raw:
        answer = raw.send(request(headers={"Connection": value})).answer()
        assert (answer.status, answer.closes) == (200, True)
        assert raw.at_end()


H2C = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMA"}


def test_an_upgrade_is_answered_as_plain_http(target: Target) -> None:
    with target.raw() as raw:
        answer = raw.send(request(headers=H2C)).answer()
        assert (answer.status, answer.body, answer.header("Upgrade")) == (200, OK, None)
        assert raw.send(LIVE + request(headers=H2C) + LIVE).answer().status == 200
        assert [answer.status for answer in raw.answers(2)] == [200, 200]
        # A client that does not wait for our consent.
        raw.send(request(headers=H2C) + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert [answer.status for answer in raw.answers(2)] == [200, 400]
        assert raw.at_end()


def test_an_upgrade_with_connection_close_is_closed(target: Target) -> None:
    with target.raw() as raw:
        raw.send(request(headers={"Connection": "close, Upgrade", "Upgrade": "websocket"}))
        assert (raw.answer().closes, raw.at_end()) == (True, True)


@pytest.mark.parametrize("bytes_at_once", [1, 7, 100000])
def test_a_delivery_that_offers_an_upgrade_is_read_whole(
    target: Target, bytes_at_once: int
) -> None:
    # So does Java's HTTP client, with every request.
    body = json.dumps(message("upgrade")).encode()
    headers = target.signed(body) | H2C
    data = target.delivery(message("upgrade"), H2C) + LIVE
    data += request("POST", "/webhook", headers | {"Transfer-Encoding": "chunked"})
    data += chunked(body[:9], body[9:], trailers=b"Trailer: t\r\n") + LIVE
    with target.raw() as raw:
        places = range(bytes_at_once, len(data), bytes_at_once)
        raw.send_in(split(data, *places), pause=0.0002)
        assert [answer.status for answer in raw.answers(4)] == [200] * 4


def test_connect_is_no_way_out(target: Target) -> None:
    with target.raw() as raw:
        answer = raw.send(request("CONNECT", "example.com:443") + LIVE).answer()
        assert (answer.status in (404, 405), answer.closes) == (True, True)
        assert raw.at_end()


def test_a_client_may_stop_sending_before_it_reads(target: Target) -> None:
    with target.raw() as raw:
        raw.send(LIVE * 40 + target.delivery(message("half-closed"))).end_sending()
        assert [answer.status for answer in raw.answers(41)] == [200] * 41
        assert raw.at_end()


# -- targets and hosts


@pytest.mark.parametrize(
    "target_form, status",
    [
        pytest.param("http://localhost/health/live", 200, id="absolute"),
        pytest.param("HTTPS://localhost:8000/health/live?x=1", 200, id="absolute-with-query"),
        pytest.param("http://localhost", 200, id="absolute-without-path"),
        pytest.param("http://localhost?x=/health/live", 200, id="query-but-no-path"),
        pytest.param("http://user:password@localhost/health/live", 200, id="user"),
        pytest.param("/health/live#fragment", 404, id="fragment"),
        pytest.param("//health/live", 404, id="two-slashes"),
        pytest.param("/./health/live", 404, id="dot"),
        pytest.param("/health/live/", 404, id="slash-behind"),
        pytest.param("/health%2Flive", 404, id="encoded-slash"),
    ],
)
def test_targets(target: Target, target_form: str, status: int) -> None:
    with target.raw() as raw:
        answer = raw.send(request("GET", target_form)).answer()
        assert (answer.status, answer.closes) == (status, False)
    assert "password" not in target.text()


def test_a_host_with_an_endless_port_breaks_nothing(target: Target) -> None:
    with target.raw() as raw:
        answer = raw.send(request(host="a:" + "1" * 5000)).answer()
        assert answer.status in (200, 400)


def test_the_asterisk_is_no_page(target: Target) -> None:
    with target.raw() as raw:
        assert raw.send(request("OPTIONS", "*")).answer().status == 404
        assert raw.send(request("GET", "*")).answer().status == 404
        assert raw.send(LIVE).answer().status == 200


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(b"", id="missing"),
        pytest.param(b"Host: a\r\nHost: a\r\n", id="doubled"),
        pytest.param(b"Host: a\r\nHost: b\r\n", id="two"),
        pytest.param(b"Host: a, b\r\n", id="list"),
        pytest.param(b"Host: a b\r\n", id="space"),
        pytest.param(b"Host: a/b\r\n", id="slash"),
        pytest.param(b"Host: u@a\r\n", id="user"),
        pytest.param(b"Host: \xc3\xa4\r\n", id="not-ascii"),
    ],
)
def test_a_bad_host_is_refused(target: Target, lines: bytes) -> None:
    with target.raw() as raw:
        answer = raw.send(b"GET /health/live HTTP/1.1\r\n" + lines + b"\r\n").answer()
        assert (answer.status, answer.closes) == (400, True)
        assert answer.body == b'{"detail": "bad request"}\n'
        assert raw.at_end()


def test_an_answer_to_who_delivers_has_no_newline_whoever_gives_it(target: Target) -> None:
    with target.raw() as raw:
        answer = raw.send(b"POST /webhook HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}").answer()
        assert (answer.status, answer.body) == (400, b'{"detail": "bad request"}')


# -- Expect


def test_expect_100_continue_gets_its_100(target: Target) -> None:
    delivery = target.delivery(message("expected"), {"Expect": "100-continue"})
    head, _, body = delivery.partition(b"\r\n\r\n")
    with target.raw() as raw:
        raw.send(head + b"\r\n\r\n")
        assert raw.interim() == 100
        assert raw.send(body).answer().status == 200


def test_expect_behind_another_request_gets_its_100(target: Target) -> None:
    delivery = target.delivery(message("expected-behind"), {"Expect": "100-Continue"})
    head, _, body = delivery.partition(b"\r\n\r\n")
    with target.raw() as raw:
        raw.send(target.delivery(message("expected-before")) + head + b"\r\n\r\n")
        assert raw.answer().status == 200
        assert raw.interim() == 100
        assert raw.send(body).answer().status == 200


def test_expect_with_a_body_too_large_is_413_without_100(target: Target) -> None:
    headers = {"Expect": "100-continue", "Content-Length": "1048577"}
    with target.raw() as raw:
        answer = raw.send(request("POST", "/webhook", headers)).answer()
        assert (answer.status, answer.interim, answer.closes) == (413, [], True)
        assert raw.end_sending().at_end()


def test_http_1_0_gets_no_100(target: Target) -> None:
    body = target.delivery(message("old"), {"Expect": "100-continue"}).replace(b"/1.1", b"/1.0", 1)
    with target.raw() as raw:
        answer = raw.send(body).answer()
        assert (answer.status, answer.interim) == (200, [])


# -- bodies and odd splits


def _chunked_delivery(target: Target, message_id: str, trailers: bytes = b"") -> bytes:
    body = json.dumps(message(message_id)).encode()
    headers = target.signed(body) | {"Transfer-Encoding": "chunked"}
    places = sorted(random.Random(message_id).sample(range(1, len(body)), 5))
    return request("POST", "/webhook", headers) + chunked(*split(body, *places), trailers=trailers)


def test_chunked_bodies_are_put_together(target: Target) -> None:
    with target.raw() as raw:
        raw.send(_chunked_delivery(target, "chunked-1") + LIVE)
        assert [answer.status for answer in raw.answers(2)] == [200, 200]
        assert json.loads(target.get("/messages/chunked-1").body)["text"] == "Hello"


def test_trailers_and_chunk_extensions_change_nothing(target: Target) -> None:
    plain = _chunked_delivery(target, "extended", b"X-Signature: other\r\nX-Request-ID: other\r\n")
    head, _, body = plain.partition(b"\r\n\r\n")
    size, _, rest = body.partition(b"\r\n")
    extended = head + b"\r\n\r\n" + size + b';name=value;other="a;b"\r\n' + rest
    with target.raw() as raw:
        answer = raw.send(extended + LIVE).answer()
        assert answer.status == 200
        assert answer.header("X-Request-ID") != "other"
        assert raw.answer().status == 200


def test_bytes_may_come_one_at_a_time(target: Target) -> None:
    data = target.delivery(message("bytewise")) + _chunked_delivery(
        target, "bytewise-chunked", b"Trailer: t\r\n"
    )
    with target.raw() as raw:
        raw.send_in(bytewise(data + LIVE), pause=0.0002)
        assert [answer.status for answer in raw.answers(3)] == [200] * 3


def test_a_split_may_fall_anywhere(target: Target) -> None:
    plain = target.delivery(message("split"))
    coded = _chunked_delivery(target, "split-chunked", b"Trailer: t\r\n")
    for data in (plain, coded):
        with target.raw() as raw:
            for place in range(1, len(data)):
                raw.send_in(split(data, place), pause=0.0002)
            for _ in range(1, len(data)):
                assert raw.answer().status == 200


def test_splits_in_random_places_of_a_long_pipeline(target: Target) -> None:
    rng = random.Random(3)
    parts = [
        _chunked_delivery(target, f"long-{number}")
        if number % 2
        else target.delivery(message(f"long-{number}"))
        for number in range(60)
    ]
    data = b"".join(parts)
    with target.raw() as raw:
        raw.send_in(split(data, *rng.sample(range(1, len(data)), 200)), pause=0.0005)
        assert [answer.status for answer in raw.answers(60)] == [200] * 60


def test_spaces_around_a_value_are_no_part_of_it(target: Target) -> None:
    body = json.dumps(message("spaces")).encode()
    signature = target.signed(body)["X-Signature"]
    headers = {
        "X-Signature": f" \t{signature} \t ",
        "Content-Length": f"{len(body)}  ",
        "X-Request-ID": "spaced\t",
    }
    with target.raw() as raw:
        answer = raw.send(request("POST", "/webhook", headers, body)).answer()
        assert (answer.status, answer.header("X-Request-ID")) == (200, "spaced")
        headers = {"X-Signature": signature, "Transfer-Encoding": "Chunked "}
        raw.send(request("POST", "/webhook", headers) + chunked(body))
        assert raw.answer().status == 200


def test_empty_lines_before_a_request_are_skipped(target: Target) -> None:
    with target.raw() as raw:
        for data in (b"\r\n" + LIVE, b"\r\n\r\n\r\n" + LIVE):
            assert raw.send(data).answer().status == 200


# -- strict framing: what two readers could read in two ways

HEAD = b"POST /webhook HTTP/1.1\r\nHost: a\r\n"
CL = b"Content-Length: "
TE = b"Transfer-Encoding: "
END = b"\r\n\r\n0\r\n\r\n"
OLD = b"POST /webhook HTTP/1.0\r\n"
OLD_ALIVE = OLD + b"Connection: keep-alive\r\n"
CHUNKED = HEAD + TE + b"chunked\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(HEAD + CL + b"3\r\n" + TE + b"chunked" + END, id="cl-te"),
        pytest.param(HEAD + TE + b"chunked\r\n" + CL + b"3" + END, id="te-cl"),
        pytest.param(HEAD + CL + b"3\r\n" + CL + b"3\r\n\r\nabc", id="cl-cl-same"),
        pytest.param(HEAD + CL + b"3\r\n" + CL + b"4\r\n\r\nabcd", id="cl-cl"),
        pytest.param(HEAD + CL + b"3, 3\r\n\r\nabc", id="cl-list"),
        pytest.param(HEAD + CL + b"+3\r\n\r\nabc", id="cl-plus"),
        pytest.param(HEAD + CL + b"-3\r\n\r\nabc", id="cl-minus"),
        pytest.param(HEAD + CL + b"0x3\r\n\r\nabc", id="cl-hex"),
        pytest.param(HEAD + CL + b"3_0\r\n\r\nabc", id="cl-underscore"),
        pytest.param(HEAD + CL + b"3.0\r\n\r\nabc", id="cl-point"),
        pytest.param(HEAD + CL + b"1 2\r\n\r\nabc", id="cl-space"),
        pytest.param(HEAD + b"Content-Length:\r\n\r\nabc", id="cl-empty"),
        pytest.param(HEAD + CL + b"\xb2\r\n\r\nabc", id="cl-superscript"),
        pytest.param(HEAD + CL + b"18446744073709551616\r\n\r\nabc", id="cl-2-to-64"),
        pytest.param(HEAD + CL + b"" + b"9" * 5000 + b"\r\n\r\nabc", id="cl-endless"),
        pytest.param(HEAD + b"Content-Length : 3\r\n\r\nabc", id="cl-space-before-colon"),
        pytest.param(HEAD + b"Content-Length\t: 3\r\n\r\nabc", id="cl-tab-before-colon"),
        pytest.param(HEAD + TE + b"gzip, chunked" + END, id="te-gzip-chunked"),
        pytest.param(HEAD + TE + b"chunked, gzip" + END, id="te-chunked-gzip"),
        pytest.param(HEAD + TE + b"gzip\r\n\r\nabc", id="te-gzip"),
        pytest.param(HEAD + TE + b"identity\r\n" + CL + b"3\r\n\r\nabc", id="te-identity"),
        pytest.param(HEAD + TE + b"chunked, chunked" + END, id="te-twice"),
        pytest.param(HEAD + (TE + b"chunked\r\n") * 2 + b"\r\n0\r\n\r\n", id="te-te"),
        pytest.param(HEAD + TE + b"chunked\r\n" + TE + b"x" + END, id="te-x"),
        pytest.param(HEAD + TE + b"xchunked" + END, id="te-xchunked"),
        pytest.param(HEAD + TE + b"chunked;q=1" + END, id="te-parameter"),
        pytest.param(HEAD + TE + b'"chunked"\r\n\r\n0\r\n\r\n', id="te-quoted"),
        pytest.param(HEAD + TE + b"\x0bchunked" + END, id="te-vertical-tab"),
        pytest.param(HEAD + b"Transfer-Encoding:" + END, id="te-empty"),
        pytest.param(HEAD + b"Transfer-Encoding:\r\n" + CL + b"3\r\n\r\nabc", id="te-empty-cl"),
        pytest.param(HEAD + TE + b",chunked" + END, id="te-comma"),
        pytest.param(HEAD + b"Transfer-Encoding : chunked" + END, id="te-space-before-colon"),
        pytest.param(HEAD + b" Transfer-Encoding: chunked" + END, id="te-folded-in"),
        pytest.param(HEAD + b"X: y\r\n Transfer-Encoding: chunked" + END, id="obs-fold"),
        pytest.param(HEAD + b"X: y\r\n\tz\r\n\r\n", id="obs-fold-tab"),
        pytest.param(HEAD + b"X: y\rTransfer-Encoding: chunked" + END, id="bare-cr"),
        pytest.param(HEAD + b"X: y\nTransfer-Encoding: chunked" + END, id="bare-lf-header"),
        pytest.param(HEAD.replace(b"\r\n", b"\n") + b"\n", id="bare-lf"),
        pytest.param(OLD + TE + b"chunked" + END, id="te-in-1.0"),
        pytest.param(OLD_ALIVE + TE + b"chunked" + END, id="te-in-1.0-kept-alive"),
        pytest.param(HEAD + b"X\x00Y: z\r\n\r\n", id="nul-in-name"),
        pytest.param(HEAD + b"X: y\x00z\r\n\r\n", id="nul-in-value"),
        pytest.param(HEAD + b"X: y\x01z\r\n\r\n", id="control-in-value"),
        pytest.param(HEAD + b"X: y\x7fz\r\n\r\n", id="delete-in-value"),
        pytest.param(HEAD + b"X Y: z\r\n\r\n", id="space-in-name"),
        pytest.param(HEAD + b"X(Y): z\r\n\r\n", id="parenthesis-in-name"),
        pytest.param(HEAD + b"\xc3\xa4: z\r\n\r\n", id="name-not-ascii"),
        pytest.param(HEAD + b": z\r\n\r\n", id="no-name"),
        pytest.param(HEAD + b"no colon\r\n\r\n", id="no-colon"),
        pytest.param(b"POST /web\x00hook HTTP/1.1\r\nHost: a\r\n\r\n", id="nul-in-target"),
        pytest.param(b"POST /web hook HTTP/1.1\r\nHost: a\r\n\r\n", id="space-in-target"),
        pytest.param(b"POST /web\xff HTTP/1.1\r\nHost: a\r\n\r\n", id="target-not-ascii"),
        pytest.param(b"POST webhook HTTP/1.1\r\nHost: a\r\n\r\n", id="relative-target"),
        pytest.param(b"POST  HTTP/1.1\r\nHost: a\r\n\r\n", id="no-target"),
        pytest.param(b"POST /webhook HTTP/1.1 \r\nHost: a\r\n\r\n", id="space-behind-version"),
        pytest.param(b"POST /webhook HTTP/1.10\r\nHost: a\r\n\r\n", id="version-1.10"),
        pytest.param(b"POST /webhook http/1.1\r\nHost: a\r\n\r\n", id="version-lower-case"),
        pytest.param(b"POST /webhook HTTP/11\r\nHost: a\r\n\r\n", id="version-without-dot"),
        pytest.param(b"POST /webhook\r\n\r\n", id="http-0.9"),
        pytest.param(b"POST\t/webhook HTTP/1.1\r\nHost: a\r\n\r\n", id="tab-in-request-line"),
        pytest.param(b"B\xc3\x89 /webhook HTTP/1.1\r\nHost: a\r\n\r\n", id="method-of-bytes"),
        pytest.param(b"P(ST /webhook HTTP/1.1\r\nHost: a\r\n\r\n", id="method-no-token"),
        pytest.param(b"P" * 65 + b" /webhook HTTP/1.1\r\nHost: a\r\n\r\n", id="method-long"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", id="an-answer"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http-2-preface"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="tls"),
        pytest.param(CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n", id="chunk-0x"),
        pytest.param(CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n", id="chunk-plus"),
        pytest.param(CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n", id="chunk-minus"),
        pytest.param(CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n", id="chunk-space"),
        pytest.param(CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n", id="chunk-space-before"),
        pytest.param(CHUNKED + b"3_0\r\nabc\r\n0\r\n\r\n", id="chunk-underscore"),
        pytest.param(CHUNKED + b"\r\nabc\r\n0\r\n\r\n", id="chunk-empty-size"),
        pytest.param(CHUNKED + b";a=b\r\nabc\r\n0\r\n\r\n", id="chunk-only-extension"),
        pytest.param(CHUNKED + b"g\r\nabc\r\n0\r\n\r\n", id="chunk-no-hex"),
        pytest.param(CHUNKED + b"3\nabc\n0\n\n", id="chunk-bare-lf"),
        pytest.param(CHUNKED + b"3\r\nabc\n0\r\n\r\n", id="chunk-data-bare-lf"),
        pytest.param(CHUNKED + b"3\rabc\r\n0\r\n\r\n", id="chunk-bare-cr"),
        pytest.param(CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n", id="chunk-too-long"),
        pytest.param(CHUNKED + b"3\r\nab\r\n0\r\n\r\n", id="chunk-too-short"),
        pytest.param(CHUNKED + b"3;\nx\r\nabc\r\n0\r\n\r\n", id="chunk-extension-lf"),
        pytest.param(CHUNKED + b'3;a="\r\n"\r\nabc\r\n0\r\n\r\n', id="chunk-extension-quoted-crlf"),
        pytest.param(CHUNKED + b"3;a\x00\r\nabc\r\n0\r\n\r\n", id="chunk-extension-nul"),
        pytest.param(CHUNKED + b"1" + b"0" * 16 + b"\r\nabc", id="chunk-2-to-64"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n0\r\nX Y: z\r\n\r\n", id="trailer-space"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n", id="trailer-cl"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n0\r\nX: y\n\r\n", id="trailer-lf"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n0\r\nGET / HTTP/1.1\r\n\r\n", id="trailer-request"),
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_refused(target: Target, data: bytes) -> None:
    stored = target.stored()
    hidden = target.delivery(message("hidden"))
    for pieces in ([data + hidden], bytewise(data)):
        with target.raw() as raw:
            raw.send_in(pieces, pause=0.0001 if len(pieces) > 1 and len(pieces) < 500 else 0)
            answer = raw.answer()
            assert answer.status in (400, 413, 501, 505)
            assert answer.status != 413 or b"Content-Length: 9999" in data
            assert answer.closes
            assert set(json.loads(answer.body)) == {"detail"}
            with_hidden = raw.send(b"" if len(pieces) == 1 else hidden)
            assert with_hidden.end_sending().at_end()
    assert target.stored() == stored


def test_a_get_may_have_a_body_and_the_next_request_is_not_in_it(target: Target) -> None:
    inner = request("GET", "/nowhere")
    with target.raw() as raw:
        raw.send(request("GET", "/health", body=inner) + LIVE)
        assert [answer.status for answer in raw.answers(2)] == [200, 200]
        assert raw.silent(0.05)


def test_answers_carry_nothing_that_a_request_said(target: Target) -> None:
    for value in ("a\x0bb", "x" * 129, "ä", "a b", "a,b", "<script>", ""):
        with Raw(target.port) as raw:
            raw.send(request(headers={"X-Request-ID": value}))
            answer = raw.answer()
            if answer.status == 200:
                given = answer.header("X-Request-ID")
                assert given not in (None, value)
    with Raw(target.port) as raw:
        raw.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: a\r\nX-Request-ID: b\r\n\r\n")
        assert raw.answer().header("X-Request-ID") not in ("a", "b", "a,b")


def test_log_lines_follow_the_order_of_the_answers(target: Target) -> None:
    mark = target.mark()
    names = [f"order-{number}" for number in range(20)]
    with target.raw() as raw:
        raw.send(b"".join(request(headers={"X-Request-ID": name}) for name in names))
        raw.answers(20)
    wait_until(lambda: '"order-19"' in target.text())
    lines = [line for line in target.lines_since(mark) if line["path"] == "/health/live"]
    assert [line["request_id"] for line in lines] == names
    assert all(one["ts"] <= two["ts"] for one, two in pairwise(lines))
