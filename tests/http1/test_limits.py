"""What one client may send: nothing it does makes the server keep more than it should."""

import json
import time

import pytest

from ..process import message
from .conftest import Target, wait_until
from .raw import chunked, request

LIVE = request()
MEGABYTE = 1 << 20
LIMIT = MEGABYTE  # MAX_BODY_BYTES' default


def _text_of(size: int) -> bytes:
    return b'{"message_id":"' + b"x" * (size - 17) + b'"}'


@pytest.mark.parametrize("coding", ["plain", "chunked"])
def test_the_largest_body_is_read_and_one_byte_more_is_not(target: Target, coding: str) -> None:
    for size, status in ((LIMIT, 422), (LIMIT + 1, 413)):
        body = _text_of(size)
        assert len(body) == size
        headers = target.signed(body)
        if coding == "plain":
            data = request("POST", "/webhook", headers, body)
        else:
            data = request("POST", "/webhook", headers | {"Transfer-Encoding": "chunked"})
            data += chunked(body[:1000], body[1000:])
        with target.raw() as raw:
            answer = raw.send(data).answer()
            assert (answer.status, answer.closes) == (status, status == 413)


def test_a_body_of_single_bytes_is_read(target: Target) -> None:
    body = json.dumps(message("single-bytes")).encode()
    headers = target.signed(body) | {"Transfer-Encoding": "chunked"}
    data = request("POST", "/webhook", headers)
    data += chunked(*(body[at : at + 1] for at in range(len(body))))
    with target.raw() as raw:
        assert raw.send(data).answer().status == 200


@pytest.mark.parametrize("path, result", [("/webhook", "too_large"), ("/nowhere", None)])
def test_a_declared_body_too_large_is_counted_and_logged_once(
    target: Target, path: str, result: str | None
) -> None:
    before, mark = target.samples(), target.mark()
    with target.raw() as raw:
        answer = raw.send(request("POST", path, {"Content-Length": str(10**15)})).answer()
        assert answer.closes
        assert set(json.loads(answer.body)) == {"detail"}
        assert raw.end_sending().at_end()
    target.settle()
    lines = [line for line in target.lines_since(mark) if line["path"] == path]
    assert [(line["status"], line.get("result")) for line in lines] == [(answer.status, result)]
    if result is not None:
        assert answer.status == 413
        name = 'webhook_requests_total{result="too_large"}'
        assert target.sample(name) == before[name] + 1


@pytest.mark.parametrize(
    "length", ["1048577", "999999999999999999", "9223372036854775808", "18446744073709551615"]
)
def test_any_declared_length_too_large_is_413(target: Target, length: str) -> None:
    with target.raw() as raw:
        answer = raw.send(request("POST", "/webhook", {"Content-Length": length})).answer()
        assert (answer.status, answer.closes) == (413, True)


@pytest.mark.parametrize("coding", ["plain", "chunked"])
def test_a_client_that_sends_all_before_it_reads_still_gets_the_413(
    target: Target, coding: str
) -> None:
    size = 30 * MEGABYTE
    rss = target.rss()
    with target.raw() as raw:
        if coding == "plain":
            raw.send(request("POST", "/webhook", {"Content-Length": str(size)}))
            for _ in range(30):
                raw.send(bytes(MEGABYTE))
        else:
            raw.send(request("POST", "/webhook", {"Transfer-Encoding": "chunked"}))
            for _ in range(30):
                raw.send(b"100000\r\n" + bytes(MEGABYTE) + b"\r\n")
            raw.send(b"0\r\n\r\n")
        time.sleep(0.3)
        answer = raw.answer()
        assert (answer.status, answer.closes) == (413, True)
        assert raw.at_end()
    assert target.rss() - rss < 8 * MEGABYTE


# -- heads


def test_a_head_may_be_so_large_and_no_larger(target: Target) -> None:
    for size, status in ((32000, 200), (33000, 431)):
        with target.raw() as raw:
            answer = raw.send(request(headers={"X": "y" * size})).answer()
            assert (answer.status, answer.closes) == (status, status == 431)
        with target.raw() as raw:
            assert raw.send(request("GET", f"/?x={'y' * size}")).answer().status == status


def test_so_many_headers_and_no_more(target: Target) -> None:
    for count, status in ((99, 200), (100, 431), (5000, 431)):
        with target.raw() as raw:
            headers = {f"X{number}": "" for number in range(count)}
            assert raw.send(request(headers=headers)).answer().status == status
        with target.raw() as raw:  # all by one name
            data = b"GET /health HTTP/1.1\r\nHost: a\r\n" + b"X:\r\n" * count + b"\r\n"
            assert raw.send(data).answer().status == status


@pytest.mark.parametrize(
    "start, piece",
    [
        pytest.param(b"GET /", b"x" * 1000, id="target"),
        pytest.param(b"GET / HTTP/1.1\r\n", b"x" * 1000, id="header-name"),
        pytest.param(b"GET / HTTP/1.1\r\nX: ", b"x" * 1000, id="header-value"),
        pytest.param(b"GET / HTTP/1.1\r\nX: ", b" " * 1000, id="spaces"),
        pytest.param(b"GET / HTTP/1.1\r\n", b"X: " + b"y" * 995 + b"\r\n", id="headers"),
        pytest.param(b"GET / HTTP/1.1\r\n", b"X:\r\n" * 20, id="empty-headers"),
        pytest.param(
            request("POST", "/webhook", {"Transfer-Encoding": "chunked"}) + b"0\r\n",
            b"X: " + b"y" * 995 + b"\r\n",
            id="trailers",
        ),
        pytest.param(
            request("POST", "/webhook", {"Transfer-Encoding": "chunked"}) + b"0\r\nX: ",
            b"y" * 1000,
            id="trailer-value",
        ),
        pytest.param(
            request("POST", "/webhook", {"Transfer-Encoding": "chunked"}) + b"1;",
            b"x" * 1000,
            id="chunk-extension",
        ),
        pytest.param(
            request("POST", "/webhook", {"Transfer-Encoding": "chunked"}),
            b"0" * 1000,
            id="chunk-size",
        ),
        pytest.param(
            request("POST", "/webhook", {"Transfer-Encoding": "chunked"}) + b"1\r\nx\r\n0\r\nX: ",
            b"y" * 1000,
            id="trailer-value-behind-a-body",
        ),
    ],
)
def test_what_never_ends_is_refused(target: Target, start: bytes, piece: bytes) -> None:
    rss = target.rss()
    with target.raw() as raw:
        raw.send(start)
        try:
            for _ in range(20000):
                raw.send(piece)
                if not raw.silent(0):
                    break
        except (ConnectionResetError, BrokenPipeError):
            pytest.fail("it was cut before it could read the answer")
        answer = raw.answer()
        assert (answer.status, answer.closes) == (431, True)
    assert target.rss() - rss < 4 * MEGABYTE


def test_endless_empty_lines_are_no_request_and_keep_nothing(target: Target) -> None:
    rss = target.rss()
    with target.raw() as raw:
        for _ in range(50):
            raw.send(b"\r\n" * 50000)
        assert raw.send(LIVE).answer().status == 200
    assert target.rss() - rss < 4 * MEGABYTE


# -- what one connection can make the server keep


def test_pipelined_bodies_do_not_pile_up(target: Target) -> None:
    body = _text_of(LIMIT)
    one = request("POST", "/webhook", target.signed(body), body)
    rss, peak = target.rss(), 0
    with target.raw() as raw:
        for _ in range(100):
            raw.send(one)
            peak = max(peak, target.rss())
        assert [answer.status for answer in raw.answers(100)] == [422] * 100
    assert peak - rss < 70 * MEGABYTE


def test_thousands_of_arguments_are_refused(target: Target) -> None:
    for count, status in ((1000, 200), (1001, 400), (10000, 400)):
        with target.raw() as raw:
            target_form = "/?" + "&".join(["a"] * count)
            assert raw.send(request("GET", target_form)).answer().status == status


def _answers(target: Target) -> bool:
    try:
        return target.get("/health").status == 200
    except ConnectionError:
        return False


def test_more_clients_than_descriptors_do_no_harm(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("few-files")
    few = {"TEST_OPEN_FILES": "100"}
    with Target(folder, variables=few, errors_expected=True) as target:
        clients = [target.raw(timeout=30) for _ in range(150)]
        assert clients[0].send(target.delivery(message("crowd"))).answer().status == 200
        for client in clients:
            client.socket.close()
        wait_until(lambda: _answers(target))
        target.settle()
        assert target.deliver(message("later")).status == 200
        assert len(target.log_lines()) < 400
