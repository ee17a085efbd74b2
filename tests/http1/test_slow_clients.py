"""Clients that are slow, silent, rude or gone: each is ended in time, and nobody waits for it."""

import socket
import time

import pytest

from ..process import message
from .conftest import IMPATIENT, Target, wait_until
from .raw import Broken, Raw, request

LIVE = request()
UNFINISHED = request("POST", "/webhook", {"Content-Length": "100"})
CHUNKED = request("POST", "/webhook", {"Transfer-Encoding": "chunked"})
ABORTED = 'webhook_requests_total{result="aborted"}'


def _webhook_lines(target: Target, mark: int) -> list[tuple[int, str | None]]:
    lines = [line for line in target.lines_since(mark) if line["path"] == "/webhook"]
    return [(line["status"], line.get("result")) for line in lines]


# Below each limit of the patient, however slow the machine.
SOON = 10


def _seconds_to_end(raw: Raw) -> float:
    started = time.monotonic()
    raw.rest()
    return time.monotonic() - started


# -- timeouts


def test_a_client_that_says_nothing_is_let_go(impatient: Target) -> None:
    with impatient.raw() as raw:
        assert _seconds_to_end(raw) < SOON
    assert impatient.get("/health").status == 200


def test_a_kept_connection_is_let_go_when_idle(impatient: Target) -> None:
    with impatient.raw() as raw:
        raw.send(LIVE).answer()
        started = time.monotonic()
        assert raw.at_end()
        assert 0.9 < time.monotonic() - started < SOON


@pytest.mark.parametrize(
    "start, piece",
    [
        pytest.param(b"", b"\r\n", id="empty-lines"),
        pytest.param(b"GET /", b"x", id="target"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n", id="headers"),
    ],
)
def test_a_head_that_trickles_in_is_ended(impatient: Target, start: bytes, piece: bytes) -> None:
    with impatient.raw() as raw:
        raw.send(start)
        started = time.monotonic()
        while raw.silent(0.05):
            raw.send(piece)
            assert time.monotonic() - started < SOON
        if start:
            answer = raw.answer()
            assert (answer.status, answer.closes) == (408, True)
        assert raw.end_sending().at_end()


def test_a_head_that_never_ends_keeps_its_id(impatient: Target) -> None:
    with impatient.raw() as raw:
        answer = raw.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: mine\r\n").answer()
        assert (answer.status, answer.header("X-Request-ID")) == (408, "mine")


@pytest.mark.parametrize(
    "head, piece",
    [
        pytest.param(UNFINISHED, b"x", id="plain"),
        pytest.param(CHUNKED, b"1\r\nx\r\n", id="chunked"),
    ],
)
def test_a_body_that_trickles_in_is_ended_and_counted_once(
    impatient: Target, head: bytes, piece: bytes
) -> None:
    before, mark = impatient.sample(ABORTED), impatient.mark()
    with impatient.raw() as raw:
        raw.send(head)
        started = time.monotonic()
        while raw.silent(0.05):
            raw.send(piece)
            assert time.monotonic() - started < SOON
        answer = raw.answer()
        assert (answer.status, answer.closes) == (408, True)
        assert answer.header("X-Request-ID")
        assert raw.end_sending().at_end()
    impatient.settle()
    assert _webhook_lines(impatient, mark) == [(408, "aborted")]
    assert impatient.sample(ABORTED) == before + 1


def test_a_pipelined_body_that_never_ends_is_ended_too(impatient: Target) -> None:
    with impatient.raw() as raw:
        raw.send(impatient.delivery(message("before-the-slow")) + UNFINISHED)
        assert [answer.status for answer in raw.answers(2)] == [200, 408]
        assert raw.at_end()


def test_a_refused_client_that_neither_reads_nor_ends_is_cut(impatient: Target) -> None:
    with impatient.raw() as raw:
        raw.send(b"NONSENSE\r\n\r\n")
        time.sleep(IMPATIENT["linger_seconds"] + 0.5)
        impatient.settle()


def test_a_refused_client_may_go_on_sending_only_so_long(impatient: Target) -> None:
    started = time.monotonic()
    with impatient.raw() as raw:
        raw.send(request("POST", "/webhook", {"Content-Length": "999999999"}))
        try:
            while time.monotonic() - started < SOON:
                raw.send(b"x" * 1000)
                time.sleep(0.01)
            pytest.fail("it could go on for ever")
        except (ConnectionResetError, BrokenPipeError):
            pass
    # Longer than the silence that ends it, no longer than a body may take.
    assert time.monotonic() - started > IMPATIENT["body_seconds"] - 0.1


# -- clients that go away


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize(
    "head", [pytest.param(UNFINISHED, id="plain"), pytest.param(CHUNKED + b"5\r\nab", id="chunked")]
)
def test_an_aborted_upload_is_logged_and_counted_once(
    target: Target, head: bytes, how: str
) -> None:
    before, mark = target.samples(), target.mark()
    with target.raw() as raw:
        raw.send(head)
        time.sleep(0.05)
        if how == "end":
            assert raw.end_sending().at_end()
        else:
            raw.reset()
    wait_until(lambda: _webhook_lines(target, mark) != [])
    target.settle()
    assert _webhook_lines(target, mark) == [(499, "aborted")]
    after = target.samples()
    assert after[ABORTED] == before[ABORTED] + 1
    name = 'http_requests_total{method="POST",path="/webhook",status="499"}'
    assert after[name] == before.get(name, 0) + 1


def test_a_delivery_is_stored_though_its_sender_is_gone(target: Target) -> None:
    before = target.stored()
    for number in range(20):
        with target.raw() as raw:
            raw.send(target.delivery(message(f"gone-{number}")))
            raw.reset()
    # A reset may overtake its request; what was read is stored, counted and logged.
    target.settle()
    lines = [line for line in target.requests("/webhook") if "gone-" in str(line)]
    assert target.stored() == before + len(lines)


def test_waiting_requests_of_a_client_that_is_gone_are_logged(target: Target) -> None:
    mark = target.mark()
    with target.raw() as raw:
        raw.send(b"".join(target.delivery(message(f"waiting-{n}")) for n in range(20)))
        raw.reset()
    target.settle()
    lines = _webhook_lines(target, mark)
    assert set(lines) <= {(200, "created"), (499, "aborted")}
    assert target.sample(ABORTED) == sum(
        1 for line in target.requests("/webhook") if line.get("result") == "aborted"
    )


def test_a_reader_that_is_gone_in_the_middle_of_much(target: Target) -> None:
    for _ in range(5):
        with target.raw(receive_buffer=4096) as raw:
            raw.send(request("GET", "/messages?limit=100") * 30)
            time.sleep(0.02)
            raw.reset()
    assert target.get("/health").status == 200


# -- clients that do not read


@pytest.fixture(scope="module")
def filled(impatient_server: Target) -> Target:
    """A server with a page of messages that is 400 kB long."""
    body = "ü" * 4096
    with impatient_server.raw() as raw:
        for number in range(100):
            raw.send(impatient_server.delivery(message(f"long-{number:03}", text=body)))
            assert raw.answer().status == 200
    return impatient_server


PAGE = request("GET", "/messages?limit=100")


def test_a_client_that_never_reads_is_cut_and_costs_little(filled: Target) -> None:
    rss, peak = filled.rss(), 0
    with filled.raw(receive_buffer=4096) as raw:
        raw.send(PAGE * 200)
        started = time.monotonic()
        while filled.sample("lyftr_connections") > 1:
            peak = max(peak, filled.rss())
            assert filled.get("/health").status == 200
            assert time.monotonic() - started < SOON
            time.sleep(0.05)
        with pytest.raises((Broken, ConnectionResetError)):
            raw.answers(200)
    # 200 pages are 160 MB.
    assert peak - rss < 20 << 20
    filled.settle()


def test_a_client_that_reads_late_gets_all_in_order(filled: Target) -> None:
    count = 25
    with filled.raw(receive_buffer=4096) as raw:
        for number in range(count):
            raw.send(request("GET", "/messages?limit=100", {"X-Request-ID": f"late-{number}"}))
        time.sleep(0.3)
        for number in range(count):
            answer = raw.answer()
            assert answer.header("X-Request-ID") == f"late-{number}"
            assert len(answer.body) > 400_000
        assert raw.silent(0.1)
        assert raw.send(LIVE).answer().status == 200


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
def test_a_client_that_reads_slowly_gets_all(filled: Target, connection: str) -> None:
    # For longer than a client that does not read at all would be waited for.
    with filled.raw(receive_buffer=4096) as raw:
        pages = PAGE + request("GET", "/messages?limit=100", {"Connection": connection})
        raw.send(pages)
        received, started = b"", time.monotonic()
        while received.count(b"HTTP/1.1 200 OK") < 2 or not received.endswith(b"}\n"):
            piece = raw.socket.recv(1 << 17)
            assert piece, "it was cut"
            received += piece
            time.sleep(0.008)
        assert time.monotonic() - started > 2
    assert received.count(b'"long-050"') == 2


EXPORT = request("GET", "/messages.ndjson")


def test_a_streamed_answer_waits_for_its_reader(filled: Target) -> None:
    with filled.raw(receive_buffer=4096) as raw:
        raw.send(EXPORT * 2 + LIVE)
        time.sleep(0.2)
        for _ in range(2):
            answer = raw.answer()
            assert answer.header("Transfer-Encoding") == "chunked"
            assert answer.body.count(b'"long-') == 100
        assert raw.answer().status == 200


@pytest.mark.parametrize("how", ["stays", "ends", "resets"])
def test_a_streamed_answer_that_nobody_reads_is_cut(filled: Target, how: str) -> None:
    mark = filled.mark()
    with filled.raw(receive_buffer=4096) as raw:
        raw.send(EXPORT * 12)
        time.sleep(0.1)
        if how == "ends":
            raw.end_sending()
        elif how == "resets":
            raw.reset()
        wait_until(lambda: filled.sample("lyftr_connections") == 1)
    filled.settle()
    lines = [line for line in filled.lines_since(mark) if line["path"] == "/messages.ndjson"]
    assert len(lines) == 12
    # Those that fit into the kernel's buffers were written; where it stuck, it ended.
    statuses = [line["status"] for line in lines]
    assert statuses == sorted(statuses)
    assert statuses[-1] == 499


def test_a_client_that_half_closes_and_never_reads_is_cut(filled: Target) -> None:
    with filled.raw(receive_buffer=4096) as raw:
        raw.send(PAGE * 30).end_sending()
        wait_until(lambda: filled.sample("lyftr_connections") == 1)


def test_a_refusal_behind_answers_that_nobody_reads_is_cut(filled: Target) -> None:
    with filled.raw(receive_buffer=4096) as raw:
        raw.send(PAGE * 30 + b"NONSENSE\r\n\r\n")
        wait_until(lambda: filled.sample("lyftr_connections") == 1)


# -- many of them


def test_two_thousand_idle_connections_delay_nobody(target: Target) -> None:
    clients: list[socket.socket] = []
    try:
        for number in range(2000):
            client = socket.create_connection(("127.0.0.1", target.port))
            clients.append(client)
            # Some say nothing, some half a head, some a head and half a body.
            client.sendall((b"", b"GET / HT", UNFINISHED + b"x")[number % 3])
        wait_until(lambda: target.sample("lyftr_connections") == 2001)
        times = []
        for number in range(50):
            started = time.monotonic()
            assert target.deliver(message(f"busy-{number}")).status == 200
            times.append(time.monotonic() - started)
        assert sorted(times)[25] < 0.1
    finally:
        for client in clients:
            client.close()


def test_a_drain_waits_for_no_idle_client(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Target(tmp_path_factory.mktemp("drain")) as target:
        silent, kept = target.raw(), target.raw()
        kept.send(LIVE).answer()
        started = time.monotonic()
        target.stop()
        assert time.monotonic() - started < SOON
        assert silent.at_end()
        assert kept.at_end()
        silent.socket.close()
        kept.socket.close()
