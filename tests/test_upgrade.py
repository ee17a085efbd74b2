"""A database that 0.1.0's own code made, brought forward as CHANGELOG.md says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ServerFactory
from .process import ROOT, environment, message

# The last commit of 0.1.0.
OLD = "0519329"


@pytest.fixture
def old_code(tmp_path: Path) -> Path:
    """The package as it was, in a folder of its own."""
    command = ["git", "-C", str(ROOT), "archive", OLD, "lyftr_server"]
    archive = subprocess.run(command, capture_output=True)
    if archive.returncode:
        pytest.skip("the history of 0.1.0 is not here: a clone has it, an sdist has not")
    folder = tmp_path / "old"
    folder.mkdir()
    subprocess.run(["tar", "x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def test_the_upgrade_is_as_the_changelog_says(
    old_code: Path, server_factory: ServerFactory, tmp_path: Path
) -> None:
    chapter = (ROOT / "CHANGELOG.md").read_text()
    (commands,) = re.findall(r"### Upgrading from 0\.1\.0.*?```sh\n(.*?)```", chapter, re.DOTALL)
    folder = tmp_path / "server"
    runner = "import sys; sys.path.insert(0, sys.argv.pop(1));" + (
        "from lyftr_server.__main__ import main; sys.exit(main())"
    )
    old = ("-c", runner, str(old_code))
    texts = [f"before {n} ß" for n in range(300)]
    server = server_factory(folder, command=(*old, "serve"), DATABASE_URL="sqlite:///data/app.db")
    assert server.listening["version"] == "0.1.0"
    for n, text in enumerate(texts):
        server.deliver(message(f"m{n:03}", text=text))

    def run(command: str, *program: str) -> None:
        given = environment(WEBHOOK_SECRET="x", DATABASE_URL="sqlite:///data/app.db")
        words = re.sub(r"\s+#.*", "", command).split()
        ended = subprocess.run(
            [sys.executable, *program, *words[1:]], cwd=folder, env=given, capture_output=True
        )
        assert ended.returncode == 0, ended.stderr

    new = ("-m", "lyftr_server")
    for command in commands.splitlines():
        if command.startswith("# stop"):
            server.stop()
            server = server_factory(folder, DATABASE_URL="sqlite:///data/app.db")
        else:
            run(command, *(old if command.startswith("lyftr-server backup") else new))
    assert os.path.exists(folder / "app-0.1.0.db")
    assert server.get("/stats").json()["total_messages"] == 300
    assert server.get("/messages?q=BEFORE%2029%20SS").json()["total"] == 1
    found = server.get("/messages/m007").json()
    assert (found["text"], found["source"]) == ("before 7 ß", "native")
    assert server.deliver(message("m007", text="before 7 ß")).headers["X-Result"] == "duplicate"
    assert server.deliver(message("new")).headers["X-Result"] == "created"
