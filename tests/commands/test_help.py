"""The program as a whole, and what each command says of itself."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lyftr_server import __version__

from ..process import environment
from .running import PROGRAM, run

COMMANDS = (
    "serve sign send tail forward healthcheck export erase backup restore migrate verify".split()
)


def test_help_names_every_command(tmp_path: Path) -> None:
    ended = run(tmp_path, "--help")
    assert ended.status == 0
    assert re.findall("^ {4}([a-z]+)", ended.stdout, re.MULTILINE) == COMMANDS
    assert "exit status" in ended.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_examples_that_begin_with_the_program(
    tmp_path: Path, command: str
) -> None:
    ended = run(tmp_path, command, "--help")
    assert (ended.status, ended.stderr) == (0, "")
    _, examples, after = ended.stdout.partition("\nexamples:\n")
    assert examples
    assert all(f"lyftr-server {command}" in line for line in after.splitlines())
    assert max(map(len, ended.lines)) <= 100


@pytest.mark.parametrize(
    "command", ["send", "tail", "forward", "export", "backup", "restore", "verify"]
)
def test_help_of_a_command_that_can_fail_halfway_explains_its_exit_statuses(
    tmp_path: Path, command: str
) -> None:
    text = " ".join(run(tmp_path, command, "--help").stdout.split())
    _, found, statuses = text.partition("exit status: ")
    assert found
    assert all(f"{status} " in statuses for status in (0, 1, 2, 130))


def test_version(tmp_path: Path) -> None:
    assert run(tmp_path, "--version") == (0, f"lyftr-server {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="nothing"),
        pytest.param(["sing"], id="no command of ours"),
        pytest.param(["send"], id="no file"),
        pytest.param(["backup"], id="no target"),
        pytest.param(["export", "--form", "+1"], id="no such option"),
        pytest.param(["serve", "now"], id="an argument too many"),
    ],
)
def test_a_command_line_that_is_wrong_ends_with_usage(tmp_path: Path, arguments: list[str]) -> None:
    ended = run(tmp_path, *arguments)
    assert (ended.status, ended.stdout) == (2, "")
    assert ended.stderr.startswith("usage: lyftr-server")


def test_a_reader_that_has_gone_ends_any_command_quietly(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, *PROGRAM, "sign", "key"],
            env=environment(PYTHONUNBUFFERED=""),
            input=b"body",
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")
