"""What a stranger installs from: the lock, the wheel, make, the image and the compose file."""

import configparser
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lyftr_server

ROOT = Path(__file__).parent.parent
PINNED = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(\[[a-z,]+\])?==(?P<version>[^ ;]+)( ; [^-]+)?"
    r"( +--hash=sha256:[0-9a-f]{64})+"
)
TARGETS = re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)


LOCKS = ("requirements.txt", "tests/requirements.txt")


def lines_of(lock: str) -> list[str]:
    """Return each package's line, its hashes included."""
    text = (ROOT / lock).read_text().replace("\\\n", "")
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]


def pins(lock: str) -> set[tuple[str, str]]:
    found = map(PINNED.fullmatch, lines_of(lock))
    return {(canonicalize_name(pin["name"]), pin["version"]) for pin in found if pin}


def requirements() -> list[Requirement]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"].values()
    lines = "\n".join([setup["options"]["install_requires"], *extras]).splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize("lock", LOCKS)
def test_a_line_of_a_lock_is_one_version_with_its_hashes_and_names_no_index(lock: str) -> None:
    lines = lines_of(lock)
    assert lines
    assert [line for line in lines if not PINNED.fullmatch(line)] == []


def test_what_is_served_with_is_what_is_tested_with() -> None:
    assert pins("requirements.txt") < pins("tests/requirements.txt"), "make lock is due"


def test_nothing_is_installed_without_its_hash() -> None:
    for name in ("Makefile", "Dockerfile", "config/lyftr-server.service"):
        commands = re.findall(r"\binstall .*-r(?:equirement)? \S+", (ROOT / name).read_text())
        assert commands
        assert all("--require-hashes" in command for command in commands)


@pytest.mark.parametrize("wanted", [pytest.param(each, id=each.name) for each in requirements()])
def test_the_lock_satisfies_what_setup_cfg_asks_for(wanted: Requirement) -> None:
    versions = [
        version
        for name, version in pins("tests/requirements.txt")
        if name == canonicalize_name(wanted.name)
    ]
    assert versions, "make lock is due"
    assert all(wanted.specifier.contains(version) for version in versions), "make lock is due"


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_the_files_beside_them(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    package = ROOT / "lyftr_server"
    shutil.copytree(package, tree / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    built = subprocess.run(
        [*command, "--wheel-dir", str(tmp_path), str(tree)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("lyftr_server-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        str(file.relative_to(ROOT))
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert "lyftr_server/py.typed" in ours
    assert ours <= names
    assert not [name for name in names if name.startswith(("tests/", "config/"))]


def test_the_installed_version_is_the_package_s() -> None:
    assert importlib.metadata.version("lyftr-server") == lyftr_server.__version__


def test_run_py_is_short() -> None:
    assert len((ROOT / "run.py").read_text().splitlines()) < 20


def test_run_py_takes_the_options_of_serve() -> None:
    shown = [
        subprocess.run(
            [sys.executable, *start, "--help"], cwd=ROOT, capture_output=True, timeout=30
        )
        for start in (["run.py"], ["-m", "lyftr_server", "serve"])
    ]
    assert [each.returncode for each in shown] == [0, 0]
    assert shown[0].stdout == shown[1].stdout


@pytest.mark.parametrize("target", TARGETS)
def test_make_alone_explains_each_target(target: str) -> None:
    assert re.search(rf"^  {target} +\S", make().stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("up", "docker compose up -d --build"),
        ("down", "docker compose down -v"),
        ("stop", "docker compose stop"),
        ("logs", "docker compose logs -f api"),
        ("restart", "docker compose restart api"),
    ],
)
def test_make_drives_compose(target: str, command: str) -> None:
    assert make("--dry-run", target).stdout.rstrip().endswith(command)


def test_make_asks_the_server_at_url_and_fails_when_there_is_none() -> None:
    asked = make("health", "URL=http://127.0.0.1:1")
    assert asked.returncode != 0
    assert asked.stdout == ""


def test_a_database_shell_cannot_write(tmp_path: Path) -> None:
    file = tmp_path / "with space.db"
    assert "no database" in make("db-shell", f"DATABASE_URL=sqlite:///{file}").stderr
    if not shutil.which("sqlite3"):
        pytest.skip("sqlite3 is not here")
    subprocess.run(["sqlite3", file, "create table t (x)"], check=True, timeout=30)
    shell = subprocess.run(
        ["make", "--no-print-directory", "db-shell"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": f"sqlite:///{file}"},
        input="insert into t values (1); select count(*) from t;",
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "readonly" in shell.stderr
    assert "1" not in shell.stdout


def test_compose_has_no_secret_of_its_own() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    api = services["api"]
    for each in (services["api-1"], services["api-2"]):
        assert each.keys() - {"profiles", "depends_on", "networks"} == api.keys()
        assert not each["ports"]
        assert not each["volumes"]
        assert each["environment"].items() >= api["environment"].items()
    secret = api["environment"].pop("WEBHOOK_SECRET")
    assert secret.startswith("${WEBHOOK_SECRET:?")
    # All others are handed on from outside, or left to the image.
    assert set(api["environment"].values()) == {None}
    assert api["read_only"] is True


def test_the_image_runs_our_commands_without_a_shell_and_not_as_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    final = text[text.rindex("\nFROM ") :]
    assert re.search(r"^USER [1-9][0-9]*:[1-9][0-9]*$", final, re.MULTILINE)
    forms = dict(re.findall(r"^ *(ENTRYPOINT|CMD) (\[.+\])$", final, re.MULTILINE))
    command = json.loads(forms["ENTRYPOINT"]) + json.loads(forms["CMD"])
    assert command == ["lyftr-server", "serve"]
    assert 'CMD ["lyftr-server", "healthcheck"]' in final
    assert "WEBHOOK_SECRET" not in text


def test_down_asks_on_a_terminal_before_it_deletes() -> None:
    shown = subprocess.run(
        ["script", "--quiet", "--return", "--command", "make down COMPOSE=echo", "/dev/null"],
        cwd=ROOT,
        input=b"no\n",
        capture_output=True,
        check=False,
    )
    assert shown.returncode != 0
    assert b"deletes all stored messages" in shown.stdout
    assert b"down -v\r" not in shown.stdout.partition(b"Type yes:")[2]


def test_the_demos_messages_are_friendly() -> None:
    lines = (ROOT / "examples/messages.ndjson").read_text().splitlines()
    assert len({json.loads(line)["message_id"] for line in lines}) == len(lines) > 30
    for line in lines:
        each = json.loads(line)
        assert each["ts"].startswith("2025-01-")
        assert 0 < len(each["text"]) < 80
