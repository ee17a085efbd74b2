"""The log: whole JSON lines on standard output, nothing private in them, and never in the way."""

import asyncio
import calendar
import json
import logging
import os
import re
import resource
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lyftr_server.log import JsonLines, Output, describe, event, readable
from lyftr_server.signature import sign

from .conftest import ErrorLog, LogFile, ServerFactory
from .ports import free_port
from .process import (
    RUN_PY,
    SECRET,
    RunningServer,
    ServerSocket,
    as_body,
    environment,
    message,
)

TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


class Pipe:
    """A pipe whose reader may stall or go away."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)

    def read(self) -> bytes:
        found = b""
        while True:
            try:
                chunk = os.read(self.reading, 1 << 20)
            except BlockingIOError:
                return found
            if not chunk:
                return found
            found += chunk

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.read().splitlines()]

    def leave(self) -> None:
        os.close(self.reading)
        self.reading = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    for fd in (pipe.reading, pipe.writing):
        if fd >= 0:
            os.close(fd)


# -- records


def test_a_record_is_one_line_with_its_fields(root_logger: Any, log_file: LogFile) -> None:
    log_file.lines.install("INFO")
    logging.getLogger("some.library").info("two\nlines %s", '"ü"')
    (line,) = log_file.text().splitlines()
    found = json.loads(line)
    assert re.fullmatch(TIMESTAMP, found.pop("ts"))
    assert found == {
        "level": "INFO",
        "app": "lyftr",
        "env": "production",
        "logger": "some.library",
        "message": 'two\nlines "ü"',
    }


def test_time_is_utc(root_logger: Any, log_file: LogFile) -> None:
    log_file.lines.install("INFO")
    before = time.time()
    logging.getLogger().warning("now")
    ts = log_file.read()[0]["ts"]
    parsed = time.strptime(ts[:19], "%Y-%m-%dT%H:%M:%S")
    assert before - 1 < calendar.timegm(parsed) <= time.time()


def test_an_event_has_its_name_and_fields(root_logger: Any, log_file: LogFile) -> None:
    log_file.lines.install("INFO")
    event(logging.getLogger("x"), logging.WARNING, "listening", port=1, path=Path("/p"))
    (found,) = log_file.read()
    assert (found["event"], found["level"], found["port"]) == ("listening", "WARNING", 1)
    assert found["path"] == "/p"  # what JSON has no word for
    assert "message" not in found


def test_lower_levels_are_left_out(root_logger: Any, log_file: LogFile) -> None:
    log_file.lines.install("WARNING")
    logging.getLogger("x").info("no")
    logging.getLogger("x").warning("yes")
    assert [line["message"] for line in log_file.read()] == ["yes"]


def test_warnings_are_lines_too(root_logger: Any, log_file: LogFile) -> None:
    log_file.lines.install("INFO")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("take care", UserWarning, stacklevel=1)
    assert "take care" in log_file.read()[0]["message"]


def test_an_exception_is_a_field_without_its_words(
    root_logger: Any, log_file: LogFile, error_log: ErrorLog
) -> None:
    error_log.expected = True
    log_file.lines.install("INFO")
    try:
        int("needle")
    except ValueError:
        logging.getLogger("x").exception("it went wrong")
    (found,) = log_file.read()
    assert found["message"] == "it went wrong"
    assert found["exception"].endswith("ValueError")
    assert "test_log.py" in found["exception"]
    assert "needle" not in found["exception"].replace('int("needle")', "")


def test_an_error_of_the_system_keeps_its_words() -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        os.stat("/nowhere/file")
    assert describe(caught.value).endswith("No such file or directory: '/nowhere/file'")


# -- for a person


@pytest.mark.parametrize(
    "fields, words",
    [
        pytest.param(
            {"method": "GET", "path": "/x", "status": 200, "latency_ms": 1.5, "dup": False},
            "GET /x 200 1.5 ms dup=false",
            id="a request",
        ),
        pytest.param({"event": "listening", "port": 1}, "listening port=1", id="an event"),
        pytest.param({"message": "Hi", "logger": "x"}, "Hi logger=x", id="a record"),
        pytest.param({"event": "x", "name": "\x1b[31m"}, 'x name="\\u001b[31m"', id="an escape"),
        pytest.param({"event": "x", "name": "\ud800"}, 'x name="\\ud800"', id="a surrogate"),
        pytest.param(
            {"event": "x", "exception": "File a\n  b\nKeyError"},
            "x\n    File a\n      b\n    KeyError",
            id="an exception",
        ),
        pytest.param(
            {"event": "x", "faults": [{"loc": "body.ts"}]},
            'x faults=[{"loc": "body.ts"}]',
            id="faults",
        ),
    ],
)
def test_a_line_is_readable(fields: dict[str, Any], words: str) -> None:
    common = {"ts": "2026-11-22T12:17:26.866Z", "level": "INFO", "app": "lyftr", "env": "p"}
    assert readable(json.dumps(common | fields)) == f"12:17:26.866 INFO     {words}"


def run_on_a_terminal(tmp_path: Path, **variables: str) -> str:
    """Return what `serve` with a configuration that is no good says on a terminal."""
    controlling, terminal = os.openpty()
    try:
        command = [sys.executable, *RUN_PY]
        subprocess.run(
            command, env=environment(**variables), cwd=tmp_path, stdout=terminal, timeout=30
        )
        return os.read(controlling, 1 << 16).decode()
    finally:
        os.close(controlling)
        os.close(terminal)


def test_on_a_terminal_the_log_is_readable_and_else_json(tmp_path: Path) -> None:
    assert " ERROR    configuration_invalid " in run_on_a_terminal(tmp_path)
    assert json.loads(run_on_a_terminal(tmp_path, LOG_FORMAT="json"))["level"] == "ERROR"
    found = subprocess.run(
        [sys.executable, *RUN_PY],
        env=environment(LOG_FORMAT="text"),
        cwd=tmp_path,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert b" ERROR    configuration_invalid " in found.stdout
    assert json.loads(run_on_a_terminal(tmp_path, LOG_FORMAT="json"))["faults"]


# -- the output


def test_without_a_loop_a_line_is_out_at_once(pipe: Pipe) -> None:
    output = Output(pipe.writing)
    output.write("1")
    assert pipe.read() == b"1\n"


def test_with_a_loop_lines_leave_once_a_turn(pipe: Pipe) -> None:
    async def go() -> None:
        output = Output(pipe.writing)
        output.attach(asyncio.get_running_loop())
        output.write("1")
        output.write("2")
        assert pipe.read() == b""
        await asyncio.sleep(0)
        assert pipe.read() == b"1\n2\n"

    asyncio.run(go())


def test_a_thread_may_write_too(pipe: Pipe) -> None:
    async def go() -> None:
        output = Output(pipe.writing)
        output.attach(asyncio.get_running_loop())
        thread = threading.Thread(target=output.write, args=("1",))
        thread.start()
        await asyncio.to_thread(thread.join)
        await asyncio.sleep(0.05)
        assert pipe.read() == b"1\n"

    asyncio.run(go())


def test_a_reader_that_stalls_delays_nobody_and_loses_no_line(pipe: Pipe) -> None:
    async def go() -> bytes:
        output = Output(pipe.writing)
        output.attach(asyncio.get_running_loop())
        started = time.monotonic()
        for n in range(3000):  # more than a pipe holds
            output.write(f"{n:0100}")
        await asyncio.sleep(0)
        assert time.monotonic() - started < 20  # whom it delayed would wait for ever
        found = b""
        async with asyncio.timeout(10):
            while found.count(b"\n") < 3000:
                found += pipe.read()
                await asyncio.sleep(0.01)
        assert output.dropped == 0
        return found

    assert [int(line) for line in asyncio.run(go()).splitlines()] == list(range(3000))


def test_what_is_too_much_is_dropped_counted_and_told(root_logger: Any, pipe: Pipe) -> None:
    async def go() -> bytes:
        output = Output(pipe.writing, limit=100_000)
        JsonLines(output).install("INFO")
        output.attach(asyncio.get_running_loop())
        for _ in range(3000):
            output.write('{"x":"%s"}' % ("x" * 100))
            await asyncio.sleep(0)
        dropped = output.dropped
        assert 0 < dropped < 3000
        found = b""
        async with asyncio.timeout(10):
            while b"log_lines_dropped" not in found:
                found += pipe.read()
                await asyncio.sleep(0.01)
        output.close()
        assert output.dropped == dropped
        lines = [json.loads(line) for line in (found + pipe.read()).splitlines()]
        (told,) = [line for line in lines if line.get("event") == "log_lines_dropped"]
        assert (told["count"], len(lines)) == (dropped, 3001 - dropped)

    asyncio.run(go())


@pytest.mark.parametrize("attached", [True, False], ids=["with a loop", "without a loop"])
def test_a_reader_that_is_gone_is_no_error(root_logger: Any, pipe: Pipe, attached: bool) -> None:
    async def go() -> None:
        output = Output(pipe.writing)
        JsonLines(output).install("INFO")
        if attached:
            output.attach(asyncio.get_running_loop())
        pipe.leave()
        for _ in range(3):
            output.write("x")
            await asyncio.sleep(0.01)
        assert output.dropped >= 3
        output.close()

    asyncio.run(go())


def test_a_full_disk_is_no_error(root_logger: Any) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        output = Output(fd)
        JsonLines(output).install("INFO")
        output.write("x")
        output.close()
        assert output.dropped >= 1
    finally:
        os.close(fd)


@pytest.mark.parametrize("attached", [True, False], ids=["with a loop", "without a loop"])
def test_a_line_that_a_full_disk_cuts_is_ended_before_the_next(
    root_logger: Any, log_file: LogFile, tmp_path: Path, attached: bool
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "full.log"

    async def go(output: Output) -> None:
        if attached:
            output.attach(asyncio.get_running_loop())
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            for n in range(8):
                output.write(json.dumps({"n": n, "text": "x" * 20}))
                await asyncio.sleep(0)
            assert path.stat().st_size == 100
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        output.write(json.dumps({"n": "later"}))
        output.close()

    with path.open("ab") as file:
        output = Output(file.fileno())
        asyncio.run(go(output))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = [line["n"] for line in lines]
    assert (found[:3], found[-1]) == ([0, 1, 2], "later")
    assert len(found) + output.dropped == 9


def test_a_disk_that_stays_full_does_not_hold_up_the_end(root_logger: Any, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "full.log").open("ab") as file:
        output = Output(file.fileno())
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        try:
            output.write("x" * 20)
            started = time.monotonic()
            output.close(patience_seconds=30)
            assert time.monotonic() - started < 15
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_closing_waits_for_a_reader_but_not_for_ever(pipe: Pipe) -> None:
    output = Output(pipe.writing)
    for n in range(3000):
        output.write(f"{n:0100}")
    started = time.monotonic()
    output.close(patience_seconds=0.2)
    assert 0.2 <= time.monotonic() - started < 20
    found = bytearray()
    reader = threading.Thread(target=lambda: read_all(pipe, found))
    reader.start()
    output.close(patience_seconds=10)
    reader.join()
    assert [int(line) for line in found.splitlines()] == list(range(3000))


def read_all(pipe: Pipe, found: bytearray) -> None:
    deadline = time.monotonic() + 60
    while found.count(b"\n") < 3000 and time.monotonic() < deadline:
        found += pipe.read()
        time.sleep(0.005)


def test_lines_lost_are_known_to_the_metrics(pipe: Pipe) -> None:
    output = Output(pipe.writing, limit=0)
    lines = JsonLines(output)
    assert lines.dropped() == 0
    output._size = 1  # as if a line waited
    output.write("x")
    assert lines.dropped() == 1


# -- requests, through the real process


def test_each_request_has_one_line_with_its_fields(server: RunningServer) -> None:
    server.deliver(message("m1"))
    server.get("/messages?q=x", X_Request_ID="mine")
    server.get("/nowhere")
    created, listed, missing = server.requests(at_least=3)
    for line in (created, listed, missing):
        assert re.fullmatch(TIMESTAMP, line["ts"])
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", line["request_id"])
        assert isinstance(line["latency_ms"], float)
        assert 0 < line["latency_ms"] < 10_000
    common = ["ts", "level", "app", "env", "request_id", "method", "path", "status", "latency_ms"]
    assert list(listed) == list(missing) == common
    assert list(created) == [*common, "client", "dup", "message_id", "result"]
    assert (created["method"], created["path"], created["status"]) == ("POST", "/webhook", 200)
    assert (created["message_id"], created["dup"], created["result"]) == ("m1", False, "created")
    assert (listed["method"], listed["path"], listed["request_id"]) == ("GET", "/messages", "mine")
    assert (missing["path"], missing["status"]) == ("/nowhere", 404)


@pytest.mark.parametrize(
    "level, results",
    [
        ("DEBUG", ["created", "duplicate", "conflict", "invalid_signature"]),
        ("INFO", ["created", "duplicate", "conflict", "invalid_signature"]),
        ("WARNING", ["conflict", "invalid_signature"]),
        ("ERROR", ["invalid_signature"]),
    ],
)
def test_the_level_decides_which_requests_are_told(
    server_factory: ServerFactory, level: str, results: list[str]
) -> None:
    server = server_factory(LOG_LEVEL=level, PORT=str(free_port()))
    for body in (message(), message(), message(text="other")):
        assert server.deliver(body).status == 200
    assert server.deliver(message(), "bad").status == 401
    server.stop()
    assert [line["result"] for line in server.requests() if "result" in line] == results
    assert (server.events("listening") != []) == (level in ("DEBUG", "INFO"))


SECRETS = {"secret": "needle-secret-1", "WEBHOOK_SECRET_PREVIOUS": "needle-secret-2"}
NUMBERS = ("+919199919199", "+88288828882882")


def test_nothing_private_is_in_the_log_of_a_busy_run(server_factory: ServerFactory) -> None:
    """Plant needles in everything that a client or an operator may not find in a log."""
    token = "needle-token"
    server = server_factory(
        LOG_LEVEL="DEBUG", READ_TOKEN=token, MAX_BODY_BYTES="2000", errors_expected=True, **SECRETS
    )
    good = message("m1", from_=NUMBERS[0], to=NUMBERS[1], text="needle-text")
    signature = sign(server.secret.encode(), as_body(good))
    bodies: list[Any] = [
        good,
        good,
        good | {"text": "needle-other"},
        good | {"ts": "needle-ts"},
        good | {"from": "needle-from"},
        b'{"needle-key": "needle-value", "message_id": "\\ud800needle"}',
        b"needle-no-json",
        b"\xffneedle-no-utf8",
        b"needle-large" * 1000,
    ]
    for body in bodies:
        server.deliver(body)
        server.deliver(body, "needle-signature")
        server.deliver(body, sign(b"needle-other", as_body(body)))
    headers = {
        "Authorization": f"Bearer {token}",
        "User-Agent": "needle-agent",
        "Cookie": "needle=cookie",
        "X-Request-ID": "needle id",
        "X-Needle": "needle",
        "Referer": "http://needle/",
    }
    number = NUMBERS[0]
    for target in (
        f"/messages?from={number}&q=needle-query&limit=x",
        "/messages?q=needle-query&cursor=needle",
        f"/messages.ndjson?from={number}&needle=needle",
        f"/messages/{number}",
        f"/nowhere/{number}/x?needle=needle",
        f"/{number[1:]}",
        "/stats?needle",
        "/docs?needle",
    ):
        for method in ("GET", "HEAD", "POST", "PROPFIND"):
            server.request(method, target, None, headers)
            server.request(method, target, None, headers | {"Authorization": "Bearer needle-bad"})
    for raw in (
        b"NEEDLE / HTTP/1.1\r\n\r\n",
        b"GET /?needle HTTP/9.9\r\nHost: needle\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nneedle: \0\r\n\r\n",
        b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: needle\r\n\r\n",
        b"GET /?needle HTTP/1.1\r\nneedle: " + b"needle" * 10_000 + b"\r\n\r\n",
        b"needle needle needle\r\n\r\n",
    ):
        with ServerSocket(server.port) as connection:
            connection.send(raw)
            connection.closed()
    server.stop()
    text = server.log.read_text()
    assert len(server.requests()) >= 3 * len(bodies) + 64
    for needle in ("needle", "NEEDLE", signature, *(number.strip("+") for number in NUMBERS)):
        places = [match.start() for match in re.finditer(re.escape(needle), text)]
        assert [text[max(0, place - 200) : place + 50] for place in places] == [], needle
    # The one name of a message that may be there.
    assert '"message_id":"m1"' in text


def test_what_a_path_holds_cannot_forge_a_line(server: RunningServer) -> None:
    server.get('/a"},{"level":"ERROR%0A%22}')
    server.get("/" + "x" * 5000)
    first, second = server.requests(at_least=2)
    assert first["path"].startswith('/a"},')
    assert len(second["path"]) < 1000
    assert len(server.log_lines()) == len(server.log.read_text().splitlines())


# -- with nobody to read it


@pytest.fixture
def piped(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], RunningServer]]:
    """A server that writes its log to a pipe, and a RunningServer to ask it with."""
    process = subprocess.Popen(
        [sys.executable, *RUN_PY],
        env=environment(WEBHOOK_SECRET=SECRET, PORT="0", DATABASE_URL="sqlite:///app.db"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    asking = RunningServer.__new__(RunningServer)
    asking.secret = SECRET
    try:
        yield process, asking
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def find(process: subprocess.Popen[bytes], asking: RunningServer) -> None:
    """Read the log until it names the port."""
    assert process.stdout is not None
    for line in process.stdout:
        found = json.loads(line)
        if found.get("event") == "listening":
            asking.port = found["port"]
            return


def test_a_server_lives_on_when_nobody_reads_its_log(
    piped: tuple[subprocess.Popen[bytes], RunningServer],
) -> None:
    process, asking = piped
    find(process, asking)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    for n in range(3):
        assert asking.deliver(message(f"m{n}")).status == 200
    metrics = asking.get("/metrics").body.decode()
    assert re.search(r"^lyftr_log_lines_dropped_total [1-9]", metrics, re.MULTILINE)
    process.terminate()
    assert process.wait(10) == 0
    assert process.stderr.read() == b""


def test_a_reader_that_stalls_holds_nothing_up(
    piped: tuple[subprocess.Popen[bytes], RunningServer],
) -> None:
    process, asking = piped
    find(process, asking)
    assert process.stdout is not None
    connection = asking.connect()
    for _ in range(600):  # more than a pipe holds
        connection.request("GET", "/messages/" + "x" * 150)
        connection.getresponse().read()
    connection.close()
    process.terminate()
    found = process.stdout.read().splitlines()
    assert process.wait(10) == 0
    lines = [json.loads(line) for line in found]
    assert sum("method" in line for line in lines) == 600
    assert lines[-1]["event"] == "stopped"
