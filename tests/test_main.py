"""The command line: its help, its version, its exit statuses; sign and healthcheck."""

import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from lyftr_server import __version__
from lyftr_server.__main__ import main
from lyftr_server.signature import sign

from .process import RunningServer, environment, run_to_end

LYFTR = ("-m", "lyftr_server")
BODY = b'{"a": "\xff"}\n'


def test_the_version(tmp_path: Path) -> None:
    ended = run_to_end(tmp_path, *LYFTR, "--version")
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.decode() == f"lyftr-server {__version__}\n"


def test_help_names_every_command_and_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for word in ("serve", "sign", "send", "healthcheck", "exit status", "WEBHOOK_SECRET"):
        assert word in text


@pytest.mark.parametrize("command", ["serve", "sign", "send", "healthcheck"])
def test_every_command_has_help_with_examples(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert "examples:" in text
    assert f"lyftr-server {command}" in text
    assert re.search(r"^usage: lyftr-server \w+", text)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="no command"),
        pytest.param(["brew"], id="an unknown command"),
        pytest.param(["serve", "x"], id="a stray argument"),
        pytest.param(["sign", "--loud"], id="an unknown option"),
    ],
)
def test_a_wrong_command_line_is_2(tmp_path: Path, arguments: list[str]) -> None:
    ended = run_to_end(tmp_path, *LYFTR, *arguments, WEBHOOK_SECRET="s")
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert b"usage: lyftr-server" in ended.stderr
    assert b"Traceback" not in ended.stderr


# -- sign


def test_sign_takes_the_body_from_standard_input_byte_for_byte(tmp_path: Path) -> None:
    ended = run_to_end(tmp_path, *LYFTR, "sign", stdin=BODY, WEBHOOK_SECRET="s")
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.decode() == sign(b"s", BODY) + "\n"


def test_sign_takes_the_secret_as_an_argument(tmp_path: Path) -> None:
    ended = run_to_end(tmp_path, *LYFTR, "sign", "t\udcff", stdin=BODY, WEBHOOK_SECRET="s")
    assert ended.stdout.decode() == sign(b"t\xff", BODY) + "\n"


def test_sign_takes_the_body_as_an_argument(tmp_path: Path) -> None:
    ended = run_to_end(tmp_path, *LYFTR, "sign", "--body", "{é}", WEBHOOK_SECRET="s")
    assert ended.stdout.decode() == sign(b"s", "{é}".encode()) + "\n"


def test_sign_reads_the_secret_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"filed\n")
    ended = run_to_end(tmp_path, *LYFTR, "sign", stdin=BODY, WEBHOOK_SECRET_FILE="key")
    assert ended.stdout.decode() == sign(b"filed", BODY) + "\n"


def test_sign_without_a_secret_is_2(tmp_path: Path) -> None:
    ended = run_to_end(tmp_path, *LYFTR, "sign", stdin=BODY)
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert b"WEBHOOK_SECRET" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_a_delivery_signed_by_it_is_accepted(server: RunningServer, tmp_path: Path) -> None:
    body = b'{"message_id":"m","from":"+1","to":"+2","ts":"2025-01-15T10:00:00Z"}'
    ended = run_to_end(tmp_path, *LYFTR, "sign", stdin=body, WEBHOOK_SECRET=server.secret)
    assert server.deliver(body, ended.stdout.decode().strip()).status == 200


def test_an_interrupt_is_130(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, *LYFTR, "sign", "secret"],
        cwd=tmp_path,
        env=environment(),
        # A shell that runs the tests behind its back ignores it for all of them.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        wait_until_it_reads(process.pid)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (130, b"")


def wait_until_it_reads(pid: int) -> None:
    deadline = time.monotonic() + 60
    while "pipe" not in Path(f"/proc/{pid}/wchan").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- healthcheck


def test_healthcheck_is_0_when_the_server_is_ready(server: RunningServer, tmp_path: Path) -> None:
    ended = run_to_end(tmp_path, *LYFTR, "healthcheck", PORT=str(server.port))
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout == b'{"status": "ready"}\n'


def test_healthcheck_asks_on_loopback_when_the_server_listens_anywhere(
    server: RunningServer, tmp_path: Path
) -> None:
    ended = run_to_end(tmp_path, *LYFTR, "healthcheck", HOST="0.0.0.0", PORT=str(server.port))
    assert ended.returncode == 0


def test_healthcheck_is_1_when_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        ended = run_to_end(tmp_path, *LYFTR, "healthcheck", PORT=str(unused.getsockname()[1]))
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert b"refused" in ended.stderr


def test_healthcheck_is_1_when_nobody_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        ended = run_to_end(tmp_path, *LYFTR, "healthcheck", "--timeout", "0.2", PORT=port)
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert b"timed out" in ended.stderr


def test_healthcheck_is_1_when_the_server_is_not_ready(
    server: RunningServer, tmp_path: Path
) -> None:
    server.errors_expected = True
    server.database.rename(server.folder / "aside")
    time.sleep(1)  # a write within the last second would be proof enough
    ended = run_to_end(tmp_path, *LYFTR, "healthcheck", PORT=str(server.port))
    (server.folder / "aside").rename(server.database)
    assert ended.returncode == 1
    assert b"unavailable" in ended.stdout


def test_healthcheck_with_a_bad_port_is_2(tmp_path: Path) -> None:
    ended = run_to_end(tmp_path, *LYFTR, "healthcheck", PORT="x")
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert b"PORT" in ended.stderr
