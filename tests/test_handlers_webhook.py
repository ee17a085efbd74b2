"""POST /webhook: the contract's order of decisions, each with its answer, count and log line."""

import asyncio
import json
import sqlite3
from typing import Any

import pytest
from tornado.httpclient import HTTPResponse

from lyftr_server.app import Application
from lyftr_server.config import Config
from lyftr_server.metrics import RESULTS
from lyftr_server.signature import sign

from .conftest import Client, ErrorLog, LogFile
from .process import RunningServer, ServerSocket, as_body, message, samples

pytestmark = pytest.mark.every_engine

OK = b'{"status": "ok"}'
INVALID_SIGNATURE = b'{"detail": "invalid signature"}'
SMALL = pytest.mark.parametrize("settings", [{"max_body_bytes": 1000}], indirect=True)


async def results(client: Client) -> dict[str, float]:
    """Return webhook_requests_total, without the zeros."""
    found = samples((await client.get("/metrics")).body)
    counted = {name: found[f'webhook_requests_total{{result="{name}"}}'] for name in RESULTS}
    return {name: count for name, count in counted.items() if count}


async def rows(client: Client) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = json.loads((await client.get("/messages")).body)["data"]
    return data


def holds(answer: HTTPResponse, status: int, body: bytes | None = None) -> None:
    assert (answer.code, answer.headers["Content-Type"]) == (status, "application/json")
    assert body is None or answer.body == body


def last_line(log_file: LogFile) -> dict[str, Any]:
    return [line for line in log_file.read() if line["path"] == "/webhook"][-1]


# -- 7: done


async def test_a_signed_message_is_stored(client: Client, log_file: LogFile) -> None:
    holds(await client.deliver(message("m1", text="नमस्ते")), 200, OK)
    line = last_line(log_file)
    assert await rows(client) == [message("m1", text="नमस्ते")]
    assert await results(client) == {"created": 1}
    assert (line["status"], line["level"], line["message_id"]) == (200, "INFO", "m1")
    assert (line["dup"], line["result"]) == (False, "created")


async def test_a_second_delivery_is_a_duplicate(client: Client, log_file: LogFile) -> None:
    for _ in range(3):
        holds(await client.deliver(message()), 200, OK)
    line = last_line(log_file)
    assert await rows(client) == [message()]
    assert await results(client) == {"created": 1, "duplicate": 2}
    assert (line["level"], line["dup"], line["result"]) == ("INFO", True, "duplicate")


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"from": "+2"}, id="from"),
        pytest.param({"to": "+2"}, id="to"),
        pytest.param({"ts": "2025-01-15T10:00:00.0Z"}, id="ts, at the same instant"),
        pytest.param({"text": "Other"}, id="text"),
        pytest.param({"text": None}, id="no text"),
    ],
)
async def test_a_repeat_with_other_content_is_a_conflict_and_the_first_row_stays(
    client: Client, log_file: LogFile, fields: dict[str, Any]
) -> None:
    holds(await client.deliver(message()), 200, OK)
    holds(await client.deliver(message() | fields), 200, OK)
    line = last_line(log_file)
    assert await rows(client) == [message()]
    assert await results(client) == {"created": 1, "conflict": 1}
    assert (line["level"], line["dup"], line["result"]) == ("WARNING", True, "conflict")
    assert line["message_id"] == "m1"


async def test_a_header_tells_the_sender_what_became_of_it(client: Client) -> None:
    bodies = (message(), message(), message(text="other"))
    found = [(await client.deliver(body)).headers["X-Result"] for body in bodies]
    assert found == ["created", "duplicate", "conflict"]


async def test_a_repeat_with_other_ignored_fields_is_a_duplicate(client: Client) -> None:
    await client.deliver(message())
    await client.deliver(message() | {"x": 1})
    assert await results(client) == {"created": 1, "duplicate": 1}


async def test_of_many_at_once_one_is_created(client: Client) -> None:
    answers = await asyncio.gather(*(client.deliver(message()) for _ in range(30)))
    assert {(answer.code, answer.body) for answer in answers} == {(200, OK)}
    assert await results(client) == {"created": 1, "duplicate": 29}


async def test_an_id_is_told_apart_by_case(client: Client) -> None:
    for name in ("m", "M", "m "):
        await client.deliver(message(name))
    assert await results(client) == {"created": 3}


def test_content_type_is_not_enforced(server: RunningServer) -> None:
    body = as_body(message())
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"):
        headers = server.signed(body) | {"Content-Type": kind}
        assert server.request("POST", "/webhook", body, headers).body == OK


async def test_the_signature_is_over_the_bytes_as_received(client: Client) -> None:
    body = b" \n" + json.dumps(message(), indent=3, ensure_ascii=False).encode() + b"\r\n "
    holds(await client.deliver(body), 200, OK)


@pytest.mark.parametrize("settings", [{"secrets": (b"testsecret", b"before")}], indirect=True)
async def test_the_previous_secret_is_accepted_too(client: Client) -> None:
    holds(await client.deliver(message("m1")), 200, OK)
    holds(await client.deliver(message("m2"), secret="before"), 200, OK)
    holds(await client.deliver(message("m3"), secret="long before"), 401, INVALID_SIGNATURE)


# -- DEDUPE_BY


@pytest.mark.one_engine
@pytest.mark.parametrize("settings", [{"dedupe_by": "content"}], indirect=True)
async def test_by_content_the_same_ts_and_text_are_a_duplicate(
    client: Client, log_file: LogFile
) -> None:
    await client.deliver(message("m1"))
    holds(await client.deliver(message("m2", from_="+2", to="+3")), 200, OK)
    line = last_line(log_file)
    assert (line["message_id"], line["dup"], line["result"]) == ("m2", True, "duplicate")
    await client.deliver(message("m3", text="hello"))
    await client.deliver(message("m4", ts="2025-01-15T10:00:00.0Z"))
    await client.deliver(message("m5", text=None))
    await client.deliver(message("m6", text=None))
    assert [row["message_id"] for row in await rows(client)] == ["m1", "m3", "m4", "m5"]
    assert await results(client) == {"created": 4, "duplicate": 2}


@pytest.mark.parametrize("settings", [{"dedupe_by": "content"}], indirect=True)
async def test_by_content_a_repeated_id_still_counts(client: Client) -> None:
    await client.deliver(message("m1"))
    await client.deliver(message("m1"))
    await client.deliver(message("m1", text="other"))
    assert await results(client) == {"created": 1, "duplicate": 1, "conflict": 1}


async def test_by_id_the_same_ts_and_text_are_no_duplicate(client: Client) -> None:
    await client.deliver(message("m1"))
    await client.deliver(message("m2"))
    assert await results(client) == {"created": 2}


# -- 1: draining or full


@pytest.mark.parametrize(
    "method, body",
    [
        pytest.param("POST", as_body(message()), id="a good message"),
        pytest.param("POST", b"x" * 2000, id="before the size"),
        pytest.param("GET", None, id="before the method"),
        pytest.param("PROPFIND", None, id="before an unusual method"),
    ],
)
@SMALL
async def test_a_draining_server_refuses_first(
    client: Client, app: Application, log_file: LogFile, method: str, body: bytes | None
) -> None:
    app.draining_since = 0.0
    answer = await client.request(method, "/webhook", body, {"X-Signature": "bad"})
    app.draining_since = None
    holds(answer, 503)
    assert int(answer.headers["Retry-After"]) >= 1
    assert isinstance(json.loads(answer.body)["detail"], str)
    assert last_line(log_file)["result"] == "unavailable"
    assert (await results(client), await rows(client)) == ({"unavailable": 1}, [])


@pytest.mark.one_engine
@pytest.mark.parametrize("settings", [{"queue_limit": 2}], indirect=True)
async def test_a_full_queue_refuses_first_and_loses_nothing(
    client: Client, app: Application, settings: Config
) -> None:
    lock = sqlite3.connect(settings.database_path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")  # no commit goes through
    waiting = [asyncio.create_task(client.deliver(message(f"m{n}"))) for n in range(2)]
    async with asyncio.timeout(1):
        while app.store.queue_depth < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    refused = [
        await client.deliver(message("m3")),
        await client.deliver(message("m4"), "bad"),
        await client.request("GET", "/webhook"),
    ]
    lock.execute("ROLLBACK")
    lock.close()
    for answer in refused:
        holds(answer, 503)
        assert int(answer.headers["Retry-After"]) >= 1
    for answer in await asyncio.gather(*waiting):
        holds(answer, 200, OK)
    assert await results(client) == {"created": 2, "unavailable": 3}
    holds(await client.deliver(message("m3")), 200, OK)
    assert len(await rows(client)) == 3


async def metric(client: Client, name: str) -> float:
    return samples((await client.get("/metrics")).body)[name]


# -- 2: method


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_another_method_is_405(client: Client, log_file: LogFile, method: str) -> None:
    answer = await client.request(method, "/webhook", b"" if method == "PUT" else None)
    holds(answer, 405)
    assert (answer.headers["Allow"], list(json.loads(answer.body))) == ("POST", ["detail"])
    assert (last_line(log_file)["status"], last_line(log_file)["dup"]) == (405, False)
    assert await results(client) == {}


async def test_head_is_405_without_a_body(client: Client) -> None:
    answer = await client.request("HEAD", "/webhook")
    assert (answer.code, answer.headers["Allow"], answer.body) == (405, "POST", b"")


@SMALL
async def test_the_method_comes_before_the_size(client: Client) -> None:
    holds(await client.request("PUT", "/webhook", b"x" * 2000), 405)


# -- 3: size


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
@SMALL
async def test_a_body_that_is_too_large_is_413_before_its_signature(
    client: Client, log_file: LogFile, chunked: bool
) -> None:
    body = as_body(message(text="x" * 1000))
    for signature in (sign(b"testsecret", body), "bad"):
        answer = await send(client, body, signature, chunked)
        holds(answer, 413)
        assert list(json.loads(answer.body)) == ["detail"]
        line = last_line(log_file)
        assert (line["status"], line["result"], line["dup"]) == (413, "too_large", False)
    found = samples((await client.get("/metrics")).body)
    assert found['http_requests_total{method="POST",path="/webhook",status="413"}'] == 2
    assert (await results(client), await rows(client)) == ({"too_large": 2}, [])


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
@SMALL
async def test_a_body_of_just_the_limit_is_taken(client: Client, chunked: bool) -> None:
    body = as_body(message()).ljust(1000)
    holds(await send(client, body, sign(b"testsecret", body), chunked), 200, OK)
    holds(await send(client, body + b" ", "bad", chunked), 413)


async def send(client: Client, body: bytes, signature: str, chunked: bool) -> HTTPResponse:
    if not chunked:
        return await client.deliver(body, signature)

    async def produce(write: Any) -> None:
        for start in range(0, len(body), 300):
            await write(body[start : start + 300])

    return await client.request(
        "POST", "/webhook", None, {"X-Signature": signature}, body_producer=produce
    )


# -- 4: signature

GOOD = sign(b"testsecret", as_body(message()))


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("", id="empty"),
        pytest.param("0" * 64, id="wrong"),
        pytest.param(sign(b"othersecret", as_body(message())), id="another key's"),
        pytest.param(GOOD[:63], id="short"),
        pytest.param(GOOD * 100, id="over-long"),
        pytest.param("sha256=" + GOOD, id="prefixed"),
        pytest.param(f"{GOOD},{GOOD}", id="doubled in one header"),
        pytest.param("zz" * 32, id="no hexadecimal"),
        pytest.param("é" * 64, id="beyond ASCII"),
    ],
)
async def test_a_bad_signature_is_401(client: Client, log_file: LogFile, given: str) -> None:
    holds(await client.deliver(message(), given), 401, INVALID_SIGNATURE)
    line = last_line(log_file)
    assert (line["level"], line["event"]) == ("ERROR", "invalid_signature")
    assert (line["status"], line["result"], line["dup"]) == (401, "invalid_signature", False)
    assert "message_id" not in line
    assert (await results(client), await rows(client)) == ({"invalid_signature": 1}, [])


async def test_no_signature_is_401(client: Client) -> None:
    answer = await client.request("POST", "/webhook", as_body(message()))
    holds(answer, 401, INVALID_SIGNATURE)


async def test_two_signature_headers_are_401(client: Client) -> None:
    with ServerSocket.to(client.url) as socket:
        answer = await asyncio.to_thread(
            socket.post, as_body(message()), [("X-Signature", GOOD), ("X-Signature", GOOD)]
        )
    assert (answer.status, answer.body) == (401, INVALID_SIGNATURE)


async def test_any_bytes_as_a_signature_are_401(client: Client) -> None:
    for value in (b"\xff" * 64, b"\xc3\xa9" * 32, GOOD.encode() + b"\x80", b"\t" + b"0" * 64):
        with ServerSocket.to(client.url) as socket:
            answer = await asyncio.to_thread(
                socket.post, as_body(message()), [("X-Signature", value)]
            )
        assert (answer.status, answer.body) == (401, INVALID_SIGNATURE)


async def test_an_upper_case_signature_is_fine(client: Client) -> None:
    holds(await client.deliver(message(), GOOD.upper()), 200, OK)


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 50_000, b"\xff", as_body({"x": 1})])
async def test_a_bad_signature_with_a_bad_body_is_401(client: Client, body: bytes) -> None:
    holds(await client.deliver(body, "bad"), 401, INVALID_SIGNATURE)
    assert await results(client) == {"invalid_signature": 1}


# -- 5: validation


@pytest.mark.parametrize(
    "body, fault",
    [
        pytest.param(
            message(""),
            (["body", "message_id"], "string_too_short"),
            id="a field",
        ),
        pytest.param(
            message(ts="2025-01-15T10:00:00+05:30"),
            (["body", "ts"], "string_pattern_mismatch"),
            id="an offset",
        ),
        pytest.param({"message_id": "m1"}, (["body", "from"], "missing"), id="missing fields"),
        pytest.param(b"", (["body"], "json_invalid"), id="no body"),
        pytest.param(b"[]", (["body"], "object_type"), id="no object"),
        pytest.param(b"\xff", (["body"], "unicode_error"), id="no UTF-8"),
        pytest.param(b"[" * 200_000, (["body"], "json_invalid"), id="nested too deep"),
        pytest.param(b'{"a":1,"a":2}', (["body"], "duplicate_key"), id="a key twice"),
        pytest.param(b'{"a":"\\ud800"}', (["body"], "string_unicode"), id="a lone surrogate"),
        pytest.param(b"9" * 5000, (["body"], "json_invalid"), id="a number too long"),
    ],
)
async def test_what_breaks_a_rule_is_422(
    client: Client, log_file: LogFile, body: Any, fault: tuple[list[str], str]
) -> None:
    answer = await client.deliver(body)
    holds(answer, 422)
    content = json.loads(answer.body)
    assert list(content) == ["detail"]
    for each in content["detail"]:
        assert list(each) == ["loc", "msg", "type"]
        assert all(isinstance(value, (list, str)) for value in each.values())
    assert (content["detail"][0]["loc"], content["detail"][0]["type"]) == fault
    line = last_line(log_file)
    assert (line["status"], line["level"]) == (422, "WARNING")
    assert (line["result"], line["dup"], "message_id" in line) == ("validation_error", False, False)
    assert (await results(client), await rows(client)) == ({"validation_error": 1}, [])


async def test_a_422_never_echoes_a_value(client: Client) -> None:
    content = dict.fromkeys(message(), "needle") | {"message_id": "needle" * 50, "text": [1]}
    answer = await client.deliver(content)
    assert len(json.loads(answer.body)["detail"]) == 5
    assert b"needle" not in answer.body


# -- 6: stored durably


@pytest.mark.one_engine
async def test_a_store_that_cannot_write_is_503(
    client: Client, settings: Config, log_file: LogFile, error_log: ErrorLog
) -> None:
    error_log.expected = True  # the store tells its operator
    await client.deliver(message("m1"))
    aside = settings.database_path.with_name("aside")
    settings.database_path.rename(aside)
    answer = await client.deliver(message("m2"))
    ready = await client.get("/health/ready")
    aside.rename(settings.database_path)
    holds(answer, 503)
    assert int(answer.headers["Retry-After"]) >= 1
    assert json.loads(answer.body) == {"detail": "storage is unavailable"}
    line = last_line(log_file)
    assert (line["result"], line["level"], line["dup"]) == ("storage_error", "WARNING", False)
    assert line["message_id"] == "m2"
    assert ready.code == 503
    holds(await client.deliver(message("m3")), 200, OK)
    assert await results(client) == {"created": 2, "storage_error": 1}
    assert await metric(client, "lyftr_storage_errors_total") >= 1


async def test_an_unforeseen_failure_is_no_4xx_and_says_nothing(
    client: Client,
    app: Application,
    log_file: LogFile,
    error_log: ErrorLog,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    error_log.expected = True

    def fail(message: object) -> None:
        raise TypeError("needle")

    monkeypatch.setattr(app.store, "insert", fail)
    answer = await client.deliver(message())
    holds(answer, 500, b'{"detail": "internal error"}')
    assert last_line(log_file)["level"] == "ERROR"
    assert await results(client) == {"storage_error": 1}
    assert "unexpected_error" in caplog.text
    assert "needle" not in caplog.text + log_file.text()


# -- through the real process


def test_the_real_process_makes_the_same_decisions(server: RunningServer) -> None:
    good = as_body(message())
    assert server.deliver(good).body == OK
    assert server.deliver(good).body == OK
    assert server.deliver(message(text="other")).body == OK
    assert (server.deliver(b"{", "bad").status, server.deliver(b"{").status) == (401, 422)
    assert server.deliver(b"x" * 1048577).status == 413
    assert server.get("/webhook").status == 405
    assert [row["text"] for row in server.get("/messages").json()["data"]] == ["Hello"]
    server.stop()
    expected = ["created", "duplicate", "conflict", "invalid_signature", "validation_error"]
    found = [line.get("result") for line in server.requests("/webhook")]
    assert found == [*expected, "too_large", None]
