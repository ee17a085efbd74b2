"""lyftr-server forward: signed, in order for each sender, at least once over kills."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from ..conftest import ServerFactory
from ..process import RunningServer, environment, message
from .running import DEADLINE_SECONDS, PROGRAM, Ended, Terminal, run
from .scripted import Reply, Request, ScriptedServer

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OK = Reply(204, b"")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


class Forward:
    """A forward in pipes, with its position in the folder."""

    def __init__(self, folder: Path, server: RunningServer, to: str, *options: str) -> None:
        self.position = folder / "forward.position"
        self.process = subprocess.Popen(
            [sys.executable, *PROGRAM, "forward", "--url", server.url, "--to", to, *options],
            env=environment(FORWARD_SECRET=SECRET),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def begun(self) -> "Forward":
        until(self.position.exists)
        return self

    def end(self, number: int | None = signal.SIGTERM) -> Ended:
        if number is not None:
            self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=DEADLINE_SECONDS)
        return Ended(self.process.returncode, output.decode(), errors.decode())


Start = Callable[..., Forward]


@pytest.fixture
def forward(tmp_path: Path) -> Iterator[Start]:
    started: list[Forward] = []

    def start(server: RunningServer, to: str, *options: str) -> Forward:
        started.append(Forward(tmp_path, server, to, *options))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def rows(target: ScriptedServer) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in target.requests]


def ids(target: ScriptedServer) -> list[str]:
    return [row["message_id"] for row in rows(target)]


def verify(request: Request) -> Any:
    return Webhook(SECRET).verify(request.body, request.headers)


def test_the_published_library_accepts_what_comes(server: RunningServer, forward: Start) -> None:
    with ScriptedServer(OK) as target:
        forward(server, f"{target.url}/hooks?tenant=1").begun()
        sent = message("m 1 é") | {"text": "é 世界"}
        server.deliver(sent)
        until(lambda: target.requests)
        (request,) = target.requests
        assert (request.method, request.path) == ("POST", "/hooks?tenant=1")
        assert request.headers["Content-Type"] == "application/json"
        assert verify(request) == sent
        changed = request._replace(body=request.body + b" ")
        with pytest.raises(WebhookVerificationError):
            verify(changed)


def test_another_server_of_ours_takes_what_comes(
    server: RunningServer, forward: Start, server_factory: ServerFactory
) -> None:
    other = server_factory(STANDARD_WEBHOOKS_SECRET=SECRET)
    forward(server, f"{other.url}/webhook").begun()
    sent = message("m1") | {"text": "é"}
    server.deliver(sent)
    until(lambda: other.get("/messages").json()["data"] == [sent])
    assert other.get("/messages/m1").json()["source"] == "standard_webhooks"


def test_it_begins_now_and_goes_on_where_it_was(server: RunningServer, forward: Start) -> None:
    server.deliver(message("before"))
    with ScriptedServer(OK) as target:
        first = forward(server, target.url).begun()
        begun = first.position.read_text()
        server.deliver(message("m1"))
        until(lambda: first.position.read_text() != begun)
        assert first.end() == (0, "", "")
        server.deliver(message("m2"))
        forward(server, target.url)
        until(lambda: len(target.requests) == 2)
        assert ids(target) == ["m1", "m2"]


def test_all_begins_with_the_first_message(server: RunningServer, forward: Start) -> None:
    for n in range(3):
        server.deliver(message(f"m{n}"))
    with ScriptedServer(OK) as target:
        forward(server, target.url, "--all")
        until(lambda: len(target.requests) == 3)
        assert ids(target) == ["m0", "m1", "m2"]


def test_the_filters_are_the_stream_s(server: RunningServer, forward: Start) -> None:
    server.deliver(message("m1") | {"from": "+911"})
    server.deliver(message("m2") | {"from": "+922"})
    with ScriptedServer(OK) as target:
        forward(server, target.url, "--all", "--from", "+922")
        until(lambda: target.requests)
        assert ids(target) == ["m2"]


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(500, b""), id="error"),
        pytest.param(Reply(404, b""), id="not found"),
        pytest.param(Reply(302, b"", [("Location", "/elsewhere")]), id="redirect"),
        pytest.param(Reply(drop=True), id="no answer"),
        pytest.param(Reply(503, b"", [("Retry-After", "1")]), id="later"),
    ],
)
def test_what_is_not_taken_is_sent_again_and_holds_the_position(
    server: RunningServer, forward: Start, reply: Reply
) -> None:
    with ScriptedServer(reply, reply, OK) as target:
        running = forward(server, target.url).begun()
        begun = running.position.read_text()
        server.deliver(message("m1"))
        until(lambda: len(target.requests) >= 2)
        assert running.position.read_text() == begun
        server.deliver(message("m2"))
        until(lambda: running.position.read_text() != begun and len(target.requests) >= 4)
        assert ids(target) == ["m1", "m1", "m1", "m2"]
        assert len({request.headers["webhook-id"] for request in target.requests}) == 2
        assert {request.path for request in target.requests} == {"/"}
        assert "'m1': " in running.end().stderr


def test_one_that_is_stuck_holds_its_sender_alone(server: RunningServer, forward: Start) -> None:
    class Picky(ScriptedServer):
        def _next(self, request: Request) -> Reply:
            super()._next(request)
            return Reply(500, b"") if b'"+911"' in request.body else OK

    with Picky() as target:
        running = forward(server, target.url).begun()
        begun = running.position.read_text()
        for n, sender in enumerate(["+911", "+922", "+911", "+922"]):
            server.deliver(message(f"m{n}") | {"from": sender})
        until(lambda: {"m1", "m3"} <= set(ids(target)))
        assert "m2" not in ids(target), "it waits for m0"
        assert running.position.read_text() == begun, "m0 is not taken"


def test_gone_ends_it_well(server: RunningServer, forward: Start) -> None:
    with ScriptedServer(Reply(410, b"")) as target:
        running = forward(server, target.url).begun()
        begun = running.position.read_text()
        server.deliver(message("m1"))
        ended = running.end(None)
        assert ended.status == 0
        assert "410" in ended.stderr
        assert running.position.read_text() == begun


def test_patience_ends_it_as_a_failure(server: RunningServer, forward: Start) -> None:
    with ScriptedServer(Reply(500, b"")) as target:
        running = forward(server, target.url, "--patience", "1").begun()
        server.deliver(message("m1"))
        ended = running.end(None)
    assert ended.status == 1
    assert "500" in ended.stderr.splitlines()[-1]


def test_two_cannot_share_a_position(server: RunningServer, forward: Start, tmp_path: Path) -> None:
    with ScriptedServer(OK) as target:
        forward(server, target.url).begun()
        options = ("--url", server.url, "--to", target.url)
        ended = run(tmp_path, "forward", *options, FORWARD_SECRET=SECRET)
    assert ended.status == 2
    assert "another forward" in ended.stderr


@pytest.mark.parametrize(
    "to, secret, content, words",
    [
        pytest.param("ftp://x", SECRET, None, "--to", id="address"),
        pytest.param("http://u:p@x/", SECRET, None, "--to", id="user"),
        pytest.param("http://127.0.0.1:1/", "", None, "FORWARD_SECRET", id="no key"),
        pytest.param("http://127.0.0.1:1/", "not base64!", None, "FORWARD_SECRET", id="bad key"),
        pytest.param("http://127.0.0.1:1/", SECRET, "", "holds no position", id="empty position"),
        pytest.param("http://127.0.0.1:1/", SECRET, "x", "after", id="position of elsewhere"),
    ],
)
def test_what_cannot_work_is_said_at_once(
    server: RunningServer, tmp_path: Path, to: str, secret: str, content: str | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "forward.position").write_text(content)
    ended = run(tmp_path, "forward", "--url", server.url, "--to", to, FORWARD_SECRET=secret)
    assert ended.status in (1, 2)
    assert words in ended.stderr
    assert SECRET not in ended.stderr


def test_a_person_sees_how_far_it_is(server: RunningServer, tmp_path: Path) -> None:
    with ScriptedServer(OK) as target:
        options = ("--url", server.url, "--to", target.url)
        terminal = Terminal(tmp_path, "forward", *options, FORWARD_SECRET=SECRET)
        until((tmp_path / "forward.position").exists)
        server.deliver(message("m1"))
        terminal.wait_for("1 messages")
        assert terminal.end(signal.SIGTERM).status == 0


@pytest.mark.slow
def test_each_message_comes_over_kills_of_either_side_in_the_order_of_its_sender(
    server_factory: ServerFactory, forward: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "server"
    server = server_factory(folder)
    port = server.port
    flaky = [Reply(500, b""), OK, OK, Reply(drop=True), OK, OK, OK]

    class Flaky(ScriptedServer):
        def _next(self, request: Request) -> Reply:
            super()._next(request)
            return flaky[len(self.requests) % len(flaky)]

    sent: dict[str, list[str]] = {"+1": [], "+2": [], "+3": []}
    with Flaky() as target:
        running = forward(server, target.url).begun()
        for n in range(90):
            sender = f"+{n % 3 + 1}"
            assert server.deliver(message(f"m{n}") | {"from": sender}).status == 200
            sent[sender].append(f"m{n}")
            if n % 20 == 10:
                running.end(signal.SIGKILL)
                running = forward(server, target.url)
            if n % 40 == 30:
                server.kill()
                server = server_factory(folder, PORT=str(port))
        everything = {name for names in sent.values() for name in names}
        until(lambda: everything <= set(ids(target)))
        got = rows(target)
    for sender, names in sent.items():
        came = [row["message_id"] for row in got if row["from"] == sender]
        first = list(dict.fromkeys(came))
        assert first == names
    for request in target.requests:
        verify(request)
