"""lyftr-server send."""

import hmac
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ..process import SECRET, RunningServer, as_body, environment, message
from .running import DEADLINE_SECONDS, PROGRAM, SAMPLE, Terminal, last_drawn, run, sample
from .scripted import Reply, ScriptedServer


def send(folder: Path, *arguments: str, stdin: bytes = b"", **variables: str):  # type: ignore[no-untyped-def]
    return run(folder, "send", *arguments, stdin=stdin, **{"WEBHOOK_SECRET": SECRET} | variables)


def ndjson(*messages: object) -> bytes:
    return b"".join(as_body(each) + b"\n" for each in messages)


BUSY = Reply(503, b'{"detail": "try again later"}', (("Retry-After", "1"),))
DROP = Reply(drop=True)


# -- the main job, on a real server


def test_the_sample_file_is_stored_and_counted(tmp_path: Path, server: RunningServer) -> None:
    ended = send(tmp_path, str(SAMPLE), "--url", server.url)
    assert (ended.status, ended.stdout) == (0, "created 158, duplicate 7, conflict 1, refused 0\n")
    assert ended.stderr == ("line 166: conflict: this message_id is stored with other content\n")
    first = {}
    for each in sample():
        first.setdefault(each.message_id, each)
    stored = []
    for offset in (0, 100):
        stored += server.get(f"/messages?limit=100&offset={offset}").json()["data"]
    assert {row["message_id"]: tuple(row.values()) for row in stored} == {
        message_id: tuple(each) for message_id, each in first.items()
    }


def test_sending_a_file_again_stores_nothing(tmp_path: Path, server: RunningServer) -> None:
    body = ndjson(*[message(f"m{n}") for n in range(20)])
    assert send(tmp_path, "-", "--url", server.url, stdin=body).stdout.startswith("created 20,")
    ended = send(tmp_path, "-", "--url", server.url, stdin=body)
    assert ended == (0, "created 0, duplicate 20, conflict 0, refused 0\n", "")


def test_refused_lines_are_named_with_their_reason(tmp_path: Path, server: RunningServer) -> None:
    body = b"\n".join(
        [
            as_body(message("m1")),
            b"",
            b"no json",
            as_body(message("m2", from_="0123", ts="today")),
            as_body(message("m3")),
        ]
    )
    ended = send(tmp_path, "-", "--url", server.url, stdin=body)
    assert (ended.status, ended.stdout) == (1, "created 2, duplicate 0, conflict 0, refused 2\n")
    assert sorted(ended.stderr.splitlines()) == [
        "line 3: 422 body must be valid JSON",
        "line 4: 422 from must be '+' and then 1 to 32 digits; ts must look like"
        " YYYY-MM-DDTHH:MM:SSZ",
    ]


def test_another_key_is_refused(tmp_path: Path, server: RunningServer) -> None:
    ended = send(
        tmp_path, "-", "--url", server.url, stdin=ndjson(message()), WEBHOOK_SECRET="other"
    )
    assert (ended.status, ended.stdout) == (1, "created 0, duplicate 0, conflict 0, refused 1\n")
    assert ended.stderr.splitlines() == [
        "line 1: 401 invalid signature",
        f"giving up: the server has another key; the rest is not sent to {server.url}/webhook",
    ]


def test_a_wrong_key_stops_at_the_first_line_and_the_rest_is_counted(
    tmp_path: Path, server: RunningServer
) -> None:
    file = tmp_path / "file"
    file.write_bytes(ndjson(*[message(f"m{n}") for n in range(3000)]))
    ended = send(tmp_path, str(file), "--url", server.url, WEBHOOK_SECRET="other")
    assert ended.status == 1
    assert ended.stdout == "created 0, duplicate 0, conflict 0, refused 1, unsent 2999\n"
    assert len(ended.stderr.splitlines()) == 2


def test_a_body_that_is_too_large_is_refused_and_the_next_line_sent(
    tmp_path: Path, server: RunningServer
) -> None:
    body = b" " * 3_000_000 + as_body(message("m1")) + b"\n" + as_body(message("m2"))
    ended = send(tmp_path, "-", "--url", server.url, "--concurrency", "1", stdin=body)
    assert (ended.status, ended.stdout) == (1, "created 1, duplicate 0, conflict 0, refused 1\n")
    assert ended.stderr == "line 1: 413 request body too large\n"


def test_lines_with_one_id_stay_in_their_order(tmp_path: Path, server: RunningServer) -> None:
    lines = [message(f"m{n % 10}", text=f"text {n}") for n in range(300)]
    ended = send(tmp_path, "-", "--url", server.url, "--concurrency", "16", stdin=ndjson(*lines))
    assert (ended.status, ended.stdout) == (0, "created 10, duplicate 0, conflict 290, refused 0\n")
    rows = server.get("/messages").json()["data"]
    assert [row["text"] for row in rows] == [f"text {n}" for n in range(10)]


@pytest.mark.slow
def test_a_restart_of_the_server_in_between_loses_nothing(
    tmp_path: Path, server: RunningServer
) -> None:
    count = 3000
    file = tmp_path / "file"
    file.write_bytes(ndjson(*[message(f"m{n}") for n in range(count)]))
    folder, port = server.folder, str(server.port)
    sending = Terminal(tmp_path, "send", str(file), "--url", server.url, WEBHOOK_SECRET=SECRET)
    sending.wait_for("left")
    server.stop()
    with RunningServer(folder, variables={"PORT": port}) as again:
        ended = sending.end()
        assert ended.status == 0, ended
        assert again.get("/messages?limit=1").json()["total"] == count
    counted = dict(part.split() for part in ended.stdout.strip().split(", "))
    assert int(counted["created"]) + int(counted["duplicate"]) == count


# -- what goes over the wire


def test_lines_go_out_byte_for_byte_and_signed(tmp_path: Path) -> None:
    lines = [
        b'  {"a" : 1}\t',
        b"\xff\xfe not UTF-8",
        b"\r",
        b'{"message_id": "\\ud800"}\r',
        b"last",
    ]
    with ScriptedServer() as scripted:
        ended = send(
            tmp_path, "-", "--url", scripted.url, "--concurrency", "1", stdin=b"\n".join(lines)
        )
    sent = [line for line in lines if line.strip()]
    assert ended == (0, f"created {len(sent)}, duplicate 0, conflict 0, refused 0\n", "")
    assert [each.body for each in scripted.requests] == sent
    for each in scripted.requests:
        assert (each.method, each.path) == ("POST", "/webhook")
        expected = hmac.digest(SECRET.encode(), each.body, "sha256").hex()
        assert each.headers["X-Signature"] == expected


def test_connections_are_kept_alive(tmp_path: Path) -> None:
    body = ndjson(*[message(f"m{n}") for n in range(50)])
    with ScriptedServer() as scripted:
        send(tmp_path, "-", "--url", scripted.url, "--concurrency", "3", stdin=body)
    assert len(scripted.requests) == 50
    assert scripted.connections == 3


@pytest.mark.parametrize(
    "path, target",
    [
        pytest.param("", "/webhook", id="server"),
        pytest.param("/", "/webhook", id="slash"),
        pytest.param("/webhook", "/webhook", id="the route itself"),
        pytest.param("/hooks/", "/hooks/webhook", id="below a path"),
    ],
)
def test_the_url_is_the_servers(tmp_path: Path, path: str, target: str) -> None:
    with ScriptedServer() as scripted:
        send(tmp_path, "-", "--url", scripted.url + path, stdin=ndjson(message()))
    assert [each.path for each in scripted.requests] == [target]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_without_a_url_the_configuration_names_the_server(tmp_path: Path, host: str) -> None:
    with ScriptedServer() as scripted:
        ended = send(tmp_path, "-", stdin=ndjson(message()), HOST=host, PORT=str(scripted.port))
    assert ended.status == 0
    assert len(scripted.requests) == 1


def test_a_server_that_does_not_say_what_it_did_has_accepted(tmp_path: Path) -> None:
    with ScriptedServer(Reply(headers=())) as scripted:
        ended = send(tmp_path, "-", "--url", scripted.url, stdin=ndjson(message()))
    assert ended.status == 0
    assert ended.stdout == "created 0, duplicate 0, conflict 0, refused 0, accepted 1\n"


@pytest.mark.parametrize(
    "reply, reason",
    [
        pytest.param(Reply(404, b'{"detail": "not found"}'), "404 not found", id="another route"),
        pytest.param(Reply(301, b"<html>"), "301 Moved Permanently", id="a redirection"),
        pytest.param(Reply(400, b'["detail"]'), "400 Bad Request", id="a list"),
        pytest.param(Reply(422, b'{"detail": [1]}'), "422 [1]", id="faults of another form"),
        pytest.param(Reply(422, b'{"detail": null}'), "422 None", id="no detail"),
    ],
)
def test_any_other_answer_is_a_refusal(tmp_path: Path, reply: Reply, reason: str) -> None:
    with ScriptedServer(reply) as scripted:
        ended = send(tmp_path, "-", "--url", scripted.url, stdin=ndjson(message()))
    assert (ended.status, ended.stderr) == (1, f"line 1: {reason}\n")
    assert len(scripted.requests) == 1


# -- again, and not for ever


def test_a_busy_server_is_asked_again_when_it_says(tmp_path: Path) -> None:
    start = time.monotonic()
    with ScriptedServer(BUSY, Reply()) as scripted:
        ended = send(tmp_path, "-", "--url", scripted.url, stdin=ndjson(message()))
    assert ended == (0, "created 1, duplicate 0, conflict 0, refused 0\n", "")
    assert [each.body for each in scripted.requests] == [as_body(message())] * 2
    assert time.monotonic() - start > 1


def test_a_busy_server_is_not_asked_for_ever(tmp_path: Path) -> None:
    busy = Reply(503, b'{"detail": "try again later"}', (("Retry-After", "soon"),))
    lines = ndjson(message("m1"), message("m2"))
    with ScriptedServer(*[busy] * 3, Reply()) as scripted:
        ended = send(
            tmp_path, "-", "--url", scripted.url, "--retries=2", "--concurrency=1", stdin=lines
        )
    assert (ended.status, ended.stdout) == (1, "created 1, duplicate 0, conflict 0, refused 1\n")
    assert ended.stderr == "line 1: 503 try again later\n"
    assert len(scripted.requests) == 4


def test_a_dropped_connection_is_opened_again(tmp_path: Path) -> None:
    with ScriptedServer(Reply(), DROP, DROP, Reply()) as scripted:
        lines = ndjson(message("m1"), message("m2"))
        ended = send(tmp_path, "-", "--url", scripted.url, "--concurrency", "1", stdin=lines)
    assert ended == (0, "created 2, duplicate 0, conflict 0, refused 0\n", "")
    assert scripted.connections == 3


def test_a_line_that_always_loses_its_connection_is_refused_and_the_next_sent(
    tmp_path: Path,
) -> None:
    with ScriptedServer(DROP, DROP, Reply()) as scripted:
        lines = ndjson(message("m1"), message("m2"))
        ended = send(
            tmp_path, "-", "--url", scripted.url, "--concurrency=1", "--retries=1", stdin=lines
        )
    assert (ended.status, ended.stdout) == (1, "created 1, duplicate 0, conflict 0, refused 1\n")
    assert ended.stderr.startswith("line 1: no answer: ")


def test_an_answer_before_the_body_is_read_is_heard(tmp_path: Path) -> None:
    def answer_and_close() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        target = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = threading.Thread(target=answer_and_close)
        server.start()
        ended = send(tmp_path, "-", "--url", target, "--retries=0", stdin=b"x" * 20_000_000)
        server.join()
    assert (ended.status, ended.stderr) == (1, "line 1: 413 Too Large\n")


def test_where_nobody_listens_it_gives_up(tmp_path: Path) -> None:
    with ScriptedServer() as scripted:
        pass
    lines = ndjson(*[message(f"m{n}") for n in range(5000)])
    ended = send(tmp_path, "-", "--url", scripted.url, "--retries", "1", stdin=lines)
    assert ended.status == 1
    assert ended.stdout.startswith("created 0, duplicate 0, conflict 0, refused 0, unsent ")
    first, second = ended.stderr.splitlines()
    assert first.endswith("no answer: Connection refused")
    assert second == (
        f"giving up: nobody answers there; the rest is not sent to {scripted.url}/webhook"
    )


def test_every_line_of_a_file_that_is_not_sent_is_counted(tmp_path: Path) -> None:
    with ScriptedServer() as scripted:
        pass
    file = tmp_path / "file"
    file.write_bytes(b"\n" + ndjson(*[message(f"m{n}") for n in range(5000)]))
    ended = send(tmp_path, str(file), "--url", scripted.url, "--retries", "0")
    assert ended.stdout == "created 0, duplicate 0, conflict 0, refused 0, unsent 5000\n"


def test_it_ends_after_giving_up_though_standard_input_stays_open(tmp_path: Path) -> None:
    with ScriptedServer() as scripted:
        pass
    sending = subprocess.Popen(
        [sys.executable, *PROGRAM, "send", "-", "--url", scripted.url, "--retries=0"],
        env=environment(WEBHOOK_SECRET=SECRET),
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert sending.stdin
    assert sending.stdout
    sending.stdin.write(ndjson(message()))
    sending.stdin.flush()
    try:
        assert sending.stdout.read().endswith(b"unsent 1\n")
        assert sending.wait(20) == 1
    finally:
        sending.kill()
        sending.communicate()


@pytest.mark.parametrize("status", [408, 429, 500, 501, 502, 503, 504, 505])
def test_what_may_be_taken_later_is_sent_again(tmp_path: Path, status: int) -> None:
    with ScriptedServer(Reply(status, b'{"detail": "later"}'), Reply()) as scripted:
        ended = send(tmp_path, "-", "--url", scripted.url, stdin=ndjson(message()))
    assert (ended.status, len(scripted.requests)) == (0, 2)


# -- what the command line gets wrong


@pytest.mark.parametrize(
    "arguments, variables, reason",
    [
        pytest.param(["-"], {"WEBHOOK_SECRET": ""}, "WEBHOOK_SECRET must be set", id="no key"),
        pytest.param(["none.ndjson"], {}, "none.ndjson: No such file", id="no file"),
        pytest.param(["."], {}, ".: Is a directory", id="a folder"),
        pytest.param(["-"], {"PORT": "x"}, "PORT must be", id="configuration"),
        pytest.param(["-", "--url", "127.0.0.1:8000"], {}, "--url must look", id="no scheme"),
        pytest.param(["-", "--url", "http://:80"], {}, "--url must look", id="no host"),
        pytest.param(["-", "--url", "http://a:b"], {}, "Port could not", id="bad port"),
        pytest.param(["-", "--url", "http://a?b"], {}, "--url must be", id="query"),
        pytest.param(["-", "--retries", "-1"], {}, "from 0 to 1000", id="retries"),
        pytest.param(["-", "--concurrency", "0"], {}, "from 1 to 256", id="concurrency"),
    ],
)
def test_usage(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], reason: str
) -> None:
    ended = send(tmp_path, *arguments, **variables)
    assert (ended.status, ended.stdout) == (2, "")
    assert reason in ended.stderr


# -- on a terminal


def test_a_terminal_shows_how_far_it_is_and_forgets_it_at_the_end(
    tmp_path: Path, server: RunningServer
) -> None:
    file = tmp_path / "file"
    file.write_bytes(ndjson(*[message(f"m{n}") for n in range(1500)]))
    sending = Terminal(
        tmp_path, "send", str(file), "--url", server.url, stdout=True, WEBHOOK_SECRET=SECRET
    )
    ended = sending.end()
    assert ended.status == 0
    drawn = ended.stderr.split("\r")
    words = next(line.split("  ") for line in drawn if "left" in line)
    assert words[0].endswith(" messages")
    assert words[1].endswith(" messages/s")
    assert 0 <= int(words[2].rstrip("%")) <= 100
    assert all(len(line) < 80 for line in drawn)
    assert "\rcreated 1500, duplicate 0, conflict 0, refused 0\r\n" in ended.stderr
    assert last_drawn(ended.stderr) == ""


def test_a_refusal_does_not_run_into_the_progress(tmp_path: Path) -> None:
    with ScriptedServer(Reply(), Reply(422, b'{"detail": "bad"}')) as scripted:
        sending = Terminal(
            tmp_path,
            *("send", "-", "--url", scripted.url, "--concurrency", "1"),
            stdin=subprocess.PIPE,
            WEBHOOK_SECRET=SECRET,
        )
        assert sending.process.stdin
        sending.process.stdin.write(ndjson(message("m1"), message("m2")))
        sending.process.stdin.close()
        sending.process.stdin = None
        ended = sending.end()
    assert last_drawn(ended.stderr.rpartition("\r\n")[0]) == "line 2: 422 bad"


def test_an_interrupted_one_says_how_far_it_came(tmp_path: Path) -> None:
    with ScriptedServer() as scripted:
        sending = Terminal(
            tmp_path,
            *("send", "-", "--url", scripted.url),
            stdin=subprocess.PIPE,
            WEBHOOK_SECRET=SECRET,
        )
        assert sending.process.stdin
        sending.process.stdin.write(ndjson(message()))
        sending.process.stdin.flush()
        sending.wait_for("1 messages")
        ended = sending.end(signal.SIGINT)  # though its input is still open
    assert (ended.status, ended.stdout) == (130, "created 1, duplicate 0, conflict 0, refused 0\n")
    assert "Traceback" not in ended.stderr


def test_an_interrupted_one_waits_for_no_answer(tmp_path: Path) -> None:
    asked, answer = threading.Event(), threading.Event()

    class Silent(ScriptedServer):
        def _next(self, request):  # type: ignore[no-untyped-def]
            asked.set()
            answer.wait(DEADLINE_SECONDS)
            return super()._next(request)

    with Silent() as scripted:
        sending = Terminal(
            tmp_path,
            *("send", "-", "--url", scripted.url),
            stdin=subprocess.PIPE,
            WEBHOOK_SECRET=SECRET,
        )
        assert sending.process.stdin
        sending.process.stdin.write(ndjson(message()))
        sending.process.stdin.flush()
        assert asked.wait(DEADLINE_SECONDS)
        ended = sending.end(signal.SIGINT)
        answer.set()
    assert (ended.status, ended.stdout) == (130, "created 0, duplicate 0, conflict 0, refused 0\n")


def test_the_sample_file_has_what_it_promises() -> None:
    messages = sample()
    texts = [each.text for each in messages]
    assert len(messages) == 166
    assert {None, ""} <= set(texts)
    assert max(len(text or "") for text in texts) == 4096
    fractions = {len(each.ts.partition(".")[2]) - 1 for each in messages if "." in each.ts}
    assert fractions == set(range(1, 10))
    assert {"0001", "9999"} <= {each.ts[:4] for each in messages}
    assert "2024-02-29" in {each.ts[:10] for each in messages}
    assert any("\u200d" in (text or "") for text in texts)
    keys = [set(json.loads(line)) for line in SAMPLE.read_bytes().splitlines()]
    assert any("text" not in each for each in keys)
    assert b"\r" not in SAMPLE.read_bytes()
