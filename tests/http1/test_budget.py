"""The bytes that all clients together may make the server keep."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from lyftr_server.http1.limits import Budget, Share

from ..process import message
from .conftest import IMPATIENT, Target, wait_until
from .raw import Raw, chunked, request

MEGABYTE = 1 << 20
UNAVAILABLE = 'webhook_requests_total{result="unavailable"}'


def test_a_share_takes_its_own_bytes_first_and_gives_back_what_it_charged() -> None:
    budget = Budget(100)
    share = Share(budget, 50)
    assert [share.take(size) for size in (30, 30, 200)] == [True, True, False]
    assert (share.used, budget.used) == (60, 10)
    assert share.take(90)
    assert not share.take(1)
    share.give(95)
    assert (share.used, budget.used) == (55, 5)
    share.give(55)
    assert (share.used, budget.used) == (0, 0)


def test_a_part_of_a_budget_takes_from_the_whole() -> None:
    whole = Budget(100)
    part = Budget(50, whole)
    assert part.take(50)
    assert not part.take(1)
    assert whole.take(50)
    part.give(50)
    assert (whole.used, part.used) == (50, 0)
    assert whole.take(30)
    assert not part.take(40)
    assert part.used == 0


@pytest.fixture(scope="module")
def poor_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with a budget of 2 MiB."""
    limits = {"budget_bytes": 2 * MEGABYTE, "sweep_seconds": 0.05}
    with Target(tmp_path_factory.mktemp("poor"), limits, errors_expected=True) as target:
        yield target
        target.check_account()


@pytest.fixture
def poor(poor_server: Target) -> Iterator[Target]:
    yield poor_server
    poor_server.settle()


def _begin_upload(target: Target, coding: str, size: int = MEGABYTE) -> Raw:
    """Send all of a body but its last byte."""
    raw = target.raw()
    if coding == "declared":
        raw.send(request("POST", "/webhook", {"Content-Length": str(size)}) + bytes(size - 1))
    else:
        raw.send(request("POST", "/webhook", {"Transfer-Encoding": "chunked"}))
        raw.send(b"%x\r\n" % size + bytes(size - 1))
    return raw


@pytest.mark.parametrize("coding", ["declared", "chunked"])
def test_a_body_that_does_not_fit_is_503_and_later_it_fits(poor: Target, coding: str) -> None:
    before, mark = poor.sample(UNAVAILABLE), poor.mark()
    with ExitStack() as stack:
        uploads = [stack.enter_context(_begin_upload(poor, coding)) for _ in range(2)]
        assert all(raw.silent(0.2) for raw in uploads)  # both are being received
        answer = stack.enter_context(_begin_upload(poor, coding)).answer()
        assert (answer.status, answer.closes) == (503, True)
        assert int(answer.header("Retry-After") or 0) >= 1
        assert set(json.loads(answer.body)) == {"detail"}
        # What is small has room whatever large bodies do.
        assert poor.deliver(message(f"small beside {coding}")).status == 200
    poor.settle()
    (line,) = [line for line in poor.lines_since(mark) if line["status"] == 503]
    assert (line["path"], line["result"]) == ("/webhook", "unavailable")
    assert poor.sample(UNAVAILABLE) == before + 1
    # Everything was given back: two fit again, and an answer gives back as well.
    for _ in range(5):
        with _begin_upload(poor, coding) as first, _begin_upload(poor, coding) as second:
            for raw in (first, second):
                assert (
                    raw.send(b"x" if coding == "declared" else b"x\r\n0\r\n\r\n").answer().status
                    == 401
                )


def test_a_declared_body_is_promised_its_room(poor: Target) -> None:
    head = request("POST", "/webhook", {"Content-Length": str(MEGABYTE)})
    with poor.raw() as first, poor.raw() as second, poor.raw() as third:
        first.send(head)
        second.send(head)
        assert poor.get("/health").status == 200  # both heads have arrived
        assert third.send(head).answer().status == 503
        for raw in (first, second):
            assert raw.send(bytes(MEGABYTE)).answer().status == 401


def test_pipelined_requests_that_wait_are_a_part_of_it(poor: Target) -> None:
    # Each is small, and what the server keeps of it is not.
    with poor.raw() as raw:
        raw.send(b"GET /health HTTP/1.1\r\nHost:a\r\n\r\n" * 5000).end_sending()
        assert {answer.status for answer in raw.answers(5000)} == {200}


@pytest.mark.parametrize(
    "method, path", [("POST", "/nowhere"), ("GET", "/health"), ("PUT", "/webhook")]
)
@pytest.mark.parametrize("coding", ["declared", "chunked"])
def test_a_body_that_nobody_wants_is_not_kept(
    poor: Target, method: str, path: str, coding: str
) -> None:
    body = bytes(MEGABYTE)
    headers = {"Transfer-Encoding": "chunked"} if coding == "chunked" else {}
    one = request(method, path, headers, b"" if headers else body)
    one += chunked(body) if headers else b""
    with ExitStack() as stack:
        clients = [stack.enter_context(poor.raw()) for _ in range(10)]
        rss = poor.rss()
        for raw in clients:
            raw.send(one[:-1])
        assert poor.get("/health").status == 200
        assert poor.rss() - rss < 4 * MEGABYTE  # ten bodies are 10 MB, and more than the budget
        for raw in clients:
            answer = raw.send(one[-1:]).answer()
            assert (answer.status, answer.closes) == (
                {"/nowhere": 404, "/health": 200, "/webhook": 405}[path],
                False,
            )


def _fill(target: Target, count: int = 100, letter: str = "ü") -> None:
    """Store pages of 1.2 MB."""
    body = letter * 4096
    with target.raw() as raw:
        for number in range(count):
            raw.send(target.delivery(message(f"long-{number:03}", text=body)))
            assert raw.answer().status == 200


PAGE = request("GET", "/messages?limit=100")


def test_answers_that_nobody_reads_leave_room_for_deliveries(poor: Target) -> None:
    _fill(poor)
    mark = poor.mark()
    with ExitStack() as stack:
        # A page for the kernel's buffers, and more.
        readers = [stack.enter_context(poor.raw(receive_buffer=4096)) for _ in range(8)]
        for raw in readers:
            raw.send(PAGE * 8)
        wait_until(lambda: any(line["status"] == 503 for line in poor.lines_since(mark)), 20)
        assert poor.deliver(as_large(b"beside them")).status in (200, 422)
        with _begin_upload(poor, "declared", MEGABYTE) as raw:
            assert raw.send(b"x").answer().status == 401
    poor.settle()
    with poor.raw() as raw:
        assert raw.send(PAGE).answer().status == 200


def as_large(text: bytes) -> bytes:
    return b'{"message_id":"' + text.ljust(500_000, b"x") + b'"}'


def test_many_readers_that_do_not_read_cost_little(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    limits = IMPATIENT | {"write_seconds": 20}
    with Target(tmp_path_factory.mktemp("unread"), limits, errors_expected=True) as target:
        _fill(target, 400, "\N{GRINNING FACE}")  # more than any chunk of an export
        target.get("/messages?limit=100")
        before = target.rss()
        with ExitStack() as stack:
            for number in range(60):
                raw = stack.enter_context(target.raw(receive_buffer=4096))
                raw.send((PAGE, request("GET", "/messages.ndjson"))[number % 2] * 8)
            seen: list[int] = []
            while len(seen) < 5 or max(seen[-5:]) - min(seen[-5:]) > MEGABYTE:
                assert target.deliver(message("beside")).status == 200
                seen.append(target.rss())
                time.sleep(0.1)
        assert max(seen) - before < 64 * MEGABYTE
        target.settle()


@pytest.mark.slow
def test_five_thousand_clients_that_send_what_they_may_cost_little(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    sent = [
        request(headers={"X": "y" * 30_000})[:-2],  # a head that lacks its end
        request("POST", "/webhook", {"Content-Length": "1000000"}) + bytes(200_000),
        request("POST", "/webhook", {"Content-Length": "16000"}) + bytes(15_900),
        request("POST", "/webhook", {"Transfer-Encoding": "chunked"}) + b"1\r\nx\r\n" * 10_000,
        b"GET /health HTTP/1.1\r\nHost:a\r\n\r\n" * 50,
    ]
    with Target(tmp_path_factory.mktemp("many"), errors_expected=True) as target:
        clients: list[socket.socket] = []
        try:
            peak = 0
            for number in range(5000):
                client = socket.create_connection(("127.0.0.1", target.port))
                clients.append(client)
                client.setblocking(False)
                with suppress(BlockingIOError):
                    client.send(sent[number % len(sent)])
                if number % 500 == 499:
                    assert target.deliver(message(f"beside {number}")).status == 200
                    peak = max(peak, target.rss())
            assert peak < 400 * MEGABYTE
        finally:
            for client in clients:
                client.close()
