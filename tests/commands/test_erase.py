"""lyftr-server erase, against a real server."""

import os
import time
from pathlib import Path

from ..conftest import ServerFactory
from ..process import message
from .running import run

TOKEN = "an-admin-token-of-ours"
NUMBER = "+919876543210"


def test_it_counts_and_then_erases(tmp_path: Path, server_factory: ServerFactory) -> None:
    server = server_factory(ADMIN_TOKEN=TOKEN)
    for n in range(3):
        server.deliver(message(f"m{n}"))
    where = {"ADMIN_TOKEN": TOKEN, "PORT": str(server.port)}
    counts = "messages 3, events 0, refused 0\n"
    assert run(tmp_path, "erase", NUMBER, "--dry-run", **where) == (0, f"would erase: {counts}", "")
    assert server.get("/stats").json()["total_messages"] == 3
    url = f"http://127.0.0.1:{server.port}/"
    ended = run(tmp_path, "erase", NUMBER, "--url", url, ADMIN_TOKEN=TOKEN)
    assert ended == (0, f"erased: {counts}", "")
    for end in ("", "-wal"):
        path = server.database.with_name(server.database.name + end)
        assert NUMBER[1:].encode() not in path.read_bytes()
    (line,) = server.events("erased")
    assert (line["messages"], "9876543210" in server.text()) == (3, False)


def test_a_wrong_token_erases_nothing(tmp_path: Path, server_factory: ServerFactory) -> None:
    server = server_factory(ADMIN_TOKEN=TOKEN)
    server.deliver(message())
    ended = run(tmp_path, "erase", NUMBER, ADMIN_TOKEN="another", PORT=str(server.port))
    assert (ended.status, "401" in ended.stderr) == (1, True)
    assert server.get("/stats").json()["total_messages"] == 1


def test_without_a_token_it_asks_nobody(tmp_path: Path) -> None:
    ended = run(tmp_path, "erase", NUMBER)
    assert (ended.status, "ADMIN_TOKEN" in ended.stderr) == (2, True)


def test_what_is_too_old_goes_by_itself(server_factory: ServerFactory) -> None:
    days = "0.000006"  # half a second
    server = server_factory(RETENTION_DAYS=days, TOMBSTONE_DAYS="1")
    server.deliver(message("m1"))
    # It is looked from time to time; a start looks at once.
    time.sleep(0.6)
    server.stop()
    again = server_factory(server.folder, RETENTION_DAYS=days, TOMBSTONE_DAYS="1")
    while again.get("/stats").json()["total_messages"]:
        time.sleep(0.05)
    answer = again.deliver(message("m1"))
    assert (answer.status, answer.headers["X-Result"]) == (200, "duplicate")
    assert os.path.getsize(again.database) > 0
