"""The real process: ready soon, ends well, refuses to start on what it must not touch."""

from .process import RunningServer, message


def test_a_started_server_stores_a_message_and_ends_well(server: RunningServer) -> None:
    answer = server.deliver(message())
    assert (answer.status, answer.body) == (200, b'{"status": "ok"}')
    assert server.get("/messages").json()["total"] == 1
    server.stop()
    assert server.log_lines()[-1]["event"] == "stopped"
