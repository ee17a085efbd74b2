"""What pipx and uvx install: the wheel by itself, with nothing of the checkout beside it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lyftr_server import __version__

from .conftest import ServerFactory
from .process import ROOT, environment, message

RUN = "import sys; sys.path.insert(0, sys.argv.pop(1));" + (
    "from lyftr_server.__main__ import main; sys.exit(main())"
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, unpacked as an installer does it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    options = ["--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", str(folder)]
    # Another folder's copy: setuptools leaves a build/ beside what it builds.
    tree = folder / "tree"
    tree.mkdir()
    for name in ("lyftr_server", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(tree)], check=True)
    subprocess.run([*command, *options, str(tree)], check=True, stdout=subprocess.DEVNULL)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def test_the_wheel_has_every_file_of_the_package(installed: Path) -> None:
    wanted = {
        path.relative_to(ROOT)
        for path in (ROOT / "lyftr_server").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {path for path in wanted if not (installed / path).is_file()} == set()


def test_the_wheel_serves_all_that_a_checkout_does(
    installed: Path, server_factory: ServerFactory
) -> None:
    server = server_factory(command=("-c", RUN, str(installed), "serve"))
    assert server.listening["version"] == __version__
    assert server.deliver(message()).status == 200
    for target in ("/docs", "/inspector", "/openapi.json", "/messages/m1", "/metrics"):
        assert server.get(target).status == 200


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_every_command(installed: Path, shell: str) -> None:
    command = [sys.executable, "-c", RUN, str(installed), "--print-completion", shell]
    script = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for name in ("serve", "send", "tail", "erase", "backup"):
        assert name in script
    if shell == "bash":
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_a_reader_that_has_gone_ends_it_quietly(installed: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", RUN, str(installed), "--print-completion", "bash"]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environment())
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")
