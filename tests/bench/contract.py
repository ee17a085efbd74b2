"""Does a server do the whole work? One that skips a part of the contract must not win by it."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.bodies import sign
from tests.bench.database import count_rows

# What check_contract itself leaves stored.
ROWS = 1
LOG_SECONDS = 5.0


class BrokenContractError(Exception):
    """A server answered or did something else than the contract says."""


def check_contract(port: int, secret: str, database: Path, log: Path) -> None:
    """Send one message, its repeat and two faults; look at answers, rows, metrics and log."""
    rows = count_rows(database)
    message = {
        "message_id": f"contract-{time.time_ns()}",
        "from": "+919800000000",
        "to": "+14155550100",
        "ts": "2025-01-15T10:00:00Z",
        "text": "नमस्ते",
    }
    body = json.dumps(message).encode()
    faulty = json.dumps(message | {"message_id": "x", "from": "9198"}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for what, sent, signature, status, answer in (
        ("a new message", body, sign(secret, body), 200, {"status": "ok"}),
        ("its repeat", body, sign(secret, body), 200, {"status": "ok"}),
        ("a wrong signature", body, b"0" * 64, 401, {"detail": "invalid signature"}),
        ("a faulty sender", faulty, sign(secret, faulty), 422, None),
    ):
        headers = {"X-Signature": signature.decode(), "Content-Type": "application/json"}
        connection.request("POST", "/webhook", sent, headers)
        response = connection.getresponse()
        got = json.loads(response.read())
        if response.status != status or got != (answer or got):
            raise BrokenContractError(f"{what} was answered {response.status} {got}")
    if (stored := count_rows(database) - rows) != ROWS:
        raise BrokenContractError(f"one message and its repeat left {stored} rows")
    connection.request("GET", "/metrics")
    metrics = connection.getresponse().read().decode()
    connection.close()
    for result in ("created", "duplicate", "invalid_signature", "validation_error"):
        if f'webhook_requests_total{{result="{result}"}} 1' not in metrics:
            raise BrokenContractError(f"/metrics does not count 1 {result}")
    _check_log(log, message["message_id"])


def _check_log(log: Path, message_id: str) -> None:
    """Wait for the two lines about the message: a good logger may hold lines back for a moment."""
    deadline = time.monotonic() + LOG_SECONDS
    while True:
        about = [line for line in _json_lines(log) if line.get("message_id") == message_id]
        if sorted(line["result"] for line in about) == ["created", "duplicate"]:
            return
        if time.monotonic() > deadline:
            raise BrokenContractError(f"the log has {len(about)} of two lines for a message")
        time.sleep(0.1)


def _json_lines(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_bytes().splitlines():
        if line.startswith(b"{") and line.endswith(b"}"):
            yield json.loads(line)
