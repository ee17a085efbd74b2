"""Whatever comes in: no 5xx, no traceback, nothing of it loose in the log, and it still serves."""

import contextlib
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lyftr_server.metrics import METHODS, RESULTS
from lyftr_server.sources import SOURCES, routes

from ..process import message
from ..sources.senders import SENDERS, STANDARD, TWILIO, VARIABLES, Sender
from .conftest import IMPATIENT, Target
from .hostile_requests import SECRETS, all_of_them
from .raw import RawAnswer, chunked, request

REQUESTS = all_of_them()
OTHERS = [route for route in routes() if route != "/webhook"]
ROUTES = {
    *OTHERS,
    *("/", "/webhook", "/messages", "/messages/{message_id}", "/messages.ndjson", "/stats"),
    *("/health", "/health/live", "/health/ready", "/metrics", "/openapi.json", "unmatched"),
    *("/docs", "/docs/init.js", "/docs/swagger-ui.js", "/docs/swagger-ui.css"),
}
FIELDS = {
    *("ts", "level", "app", "env", "request_id", "method", "path", "status", "latency_ms"),
    *("message_id", "dup", "result", "event", "logger", "host", "port", "version", "tornado"),
    *("database", "message", "detail", "seconds", "requests_in_flight", "exit_status"),
    *("client", "faults", "count", "requests"),
}
QUICK = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One server for all attacks; what it wrote and counted is looked at after them."""
    limits = IMPATIENT | {"head_seconds": 2, "body_seconds": 2, "idle_seconds": 5}
    folder = tmp_path_factory.mktemp("attacked")
    with Target(folder, limits, errors_expected=True, variables=VARIABLES) as target:
        yield target
        assert target.deliver(message("after-all")).status == 200
        target.check_account()
        check_log(target)
        check_labels(target)


def check_log(target: Target) -> None:
    text = target.text()  # log_lines() holds that it is ASCII, and each line a JSON object
    for word in (*SECRETS, "Traceback"):
        assert word not in text, word
    for line in target.log_lines():
        assert set(line) <= FIELDS, line
        assert line.get("level") != "ERROR" or line.get("event") == "invalid_signature", line
        check_faults(line.pop("faults", []))
        assert all(re.fullmatch("[0-9]{3} [a-z/.{}_]+", each) for each in line.pop("requests", {}))
        assert all(isinstance(value, str | int | float | bool) for value in line.values()), line
        assert re.fullmatch("[A-Za-z0-9._-]{1,128}", line.get("request_id", "x"))
        assert len(str(line.get("path"))) <= 600


def check_faults(faults: list[dict[str, str]]) -> None:
    for fault in faults:
        assert fault.keys() == {"loc", "type"}
        assert re.fullmatch("(body|query)([.][a-z_]+)*", fault["loc"]), fault
        assert re.fullmatch("[a-z_]+", fault["type"])


def check_labels(target: Target) -> None:
    text = target.get("/metrics").body.decode()
    labels = dict[str, set[str]]()
    for name, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', text):
        labels.setdefault(name, set()).add(value)
    assert labels["path"] <= ROUTES
    assert labels["method"] <= METHODS | {"OTHER"}
    assert labels["result"] == set(RESULTS)
    assert labels["source"] == {source.name for source in SOURCES}
    allowed = {*range(200, 205), 304, *range(400, 432), 499, 501, 503, 505}
    assert {int(status) for status in labels["status"]} <= allowed


def check_answer(answer: RawAnswer) -> None:
    assert answer.status < 500 or answer.status in (501, 503, 505), answer
    if answer.status >= 400:
        text = answer.body.decode() + str(answer.headers)
        for word in (*SECRETS, "Traceback", "lyftr_server.", ".py"):
            assert word not in text, answer
        if answer.body:
            assert set(json.loads(answer.body)) == {"detail"}
    assert answer.header("Server") == "lyftr-server"
    assert re.fullmatch("[A-Za-z0-9._-]{1,128}", answer.header("X-Request-ID") or "")


def throw(target: Target, data: bytes) -> list[RawAnswer]:
    """Send bytes, end sending, and return every answer until the connection ends."""
    found = []
    with target.raw() as raw:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # it has heard enough
            raw.send(data).end_sending()
        head = re.match(rb"\s*HEAD ", data) is not None
        while raw.more():
            found.append(raw.answer("HEAD" if head else "GET"))
            check_answer(found[-1])
    return found


# -- the table


def test_the_table_is_long_enough() -> None:
    assert len(REQUESTS) >= 150


@pytest.mark.parametrize("name", REQUESTS)
def test_a_hostile_request_gets_its_refusal(attacked: Target, name: str) -> None:
    data, allowed = REQUESTS[name]
    answers = throw(attacked, data)
    # An unfinished request is nobody's.
    assert answers or b"\r\n\r\n" not in data or name.startswith("framing")
    assert all(answer.status in allowed for answer in answers[:1]), answers


@pytest.mark.parametrize("route", OTHERS)
def test_other_senders_routes_refuse_the_same(attacked: Target, route: str) -> None:
    for name, (data, allowed) in REQUESTS.items():
        if b" /webhook " not in data:
            continue
        answers = throw(attacked, data.replace(b" /webhook ", f" {route} ".encode()))
        # What is rightly signed for our own format is not for theirs.
        assert all(answer.status in (*allowed, 401) for answer in answers[:1]), name


@pytest.mark.parametrize("sender", SENDERS, ids=repr)
def test_a_hostile_body_is_refused_when_it_is_rightly_signed_too(
    attacked: Target, sender: Sender
) -> None:
    bodies = {
        body
        for data, _ in REQUESTS.values()
        for head, _, body in [data.partition(b"\r\n\r\n")]
        if b"\r\nX-Signature: " in head and f"Content-Length: {len(body)}\r\n".encode() in data
    }
    assert len(bodies) > 40
    for body in bodies:
        (answer,) = throw(attacked, request("POST", sender.route, sender.sign(body), body))
        # These two have no signature for what is no text.
        unsigned = {401} if sender in (STANDARD, TWILIO) else set()
        assert answer.status in {200, 422} | unsigned, body


def test_memory_does_not_grow(attacked: Target) -> None:
    hostile = [data for data, _ in REQUESTS.values()]
    for data in hostile:
        throw(attacked, data)
    before = attacked.rss()
    for _ in range(2):
        for data in hostile:
            throw(attacked, data)
    assert attacked.rss() - before < 10 << 20


# -- chance


@QUICK
@given(data=st.binary(max_size=400))
def test_random_bytes(attacked: Target, data: bytes) -> None:
    throw(attacked, data)


_TOKENS = st.sampled_from(
    [
        *(b"GET ", b"POST ", b"HEAD ", b"/webhook", b"/messages?q=", b" HTTP/1.1", b" HTTP/1.0"),
        *(
            b"\r\n",
            b"\n",
            b"\r",
            b": ",
            b":",
            b" ",
            b"\t",
            b"\x00",
            b"\xff",
            b"0",
            b"5",
            b"\r\n\r\n",
        ),
        *(b"Host: a", b"Content-Length", b"Transfer-Encoding", b"chunked", b"Connection", b"close"),
        *(b"Expect: 100-continue", b"Upgrade: h2c", b"Upgrade", b"keep-alive", b"X-Signature"),
    ]
)


@QUICK
@given(tokens=st.lists(_TOKENS, max_size=40))
def test_words_of_http_in_any_order(attacked: Target, tokens: list[bytes]) -> None:
    throw(attacked, b"GET / HTTP/1.1\r\n" + b"".join(tokens) + b"\r\n\r\n")


@QUICK
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 6))
def test_mutated_requests(attacked: Target, seed: int, changes: int) -> None:
    rng = random.Random(seed)
    body = json.dumps(message("mutant")).encode()
    chosen = rng.choice(
        [
            attacked.delivery(message("mutant")),
            request("POST", "/webhook", attacked.signed(body) | {"Transfer-Encoding": "chunked"})
            + chunked(body[:40], body[40:]),
            request("GET", "/messages?limit=5&from=%2B91&since=2025-01-15T10:00:00Z&q=x"),
            request(headers={"Connection": "Upgrade", "Upgrade": "h2c"}) * 2,
        ]
    )
    data = bytearray(chosen)
    for _ in range(changes):
        place = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[place] = rng.randrange(256)
            case 1:
                del data[place]
            case 2:
                data[place:place] = rng.choice([b"\r\n", b"\n", b"\x00", b" ", b":", b"0", b"\xff"])
            case _:
                data[place:place] = data[place : place + rng.randrange(30)]
    throw(attacked, bytes(data))


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
_FIELDS = ("message_id", "from", "to", "ts", "text")


@QUICK
@given(changes=st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=2), extra=_JSON)
def test_random_json(attacked: Target, changes: dict[str, Any], extra: Any) -> None:
    content = message("random") | changes | {"extra": extra}
    (answer,) = throw(attacked, attacked.delivery(json.dumps(content).encode()))
    assert answer.status in (200, 422)


@QUICK
@given(
    name=st.sampled_from(["limit", "offset", "from", "from_msisdn", "since", "q", "cursor"]),
    value=st.binary(max_size=40) | st.text(max_size=40).map(str.encode),
)
def test_random_arguments(attacked: Target, name: str, value: bytes) -> None:
    target_form = f"/messages?{name}=" + "".join(f"%{byte:02x}" for byte in value)
    (answer,) = throw(attacked, request("GET", target_form))
    assert answer.status in (200, 422)


@QUICK
@given(
    name=st.sampled_from(["X-Signature", "X-Request-ID", "Accept", "Authorization", "Cookie", "X"]),
    value=st.text(st.characters(max_codepoint=255), max_size=60),
)
def test_random_header_values(attacked: Target, name: str, value: str) -> None:
    for path in ("/metrics", "/messages"):
        throw(attacked, request("GET", path, {name: value}))
    throw(attacked, request("POST", "/webhook", {name: value}, b"{}"))
