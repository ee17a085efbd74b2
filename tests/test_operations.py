"""What an operator finds in config/, tried with the operator's own tools and the real server."""

import configparser
import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lyftr_server.config import VARIABLES, Config

from .conftest import ServerFactory
from .ports import free_port
from .process import ROOT, SECRET, RunningServer, environment, message
from .test_documents import anchors

CONFIG = ROOT / "config"
DASHBOARD = json.loads((CONFIG / "grafana/dashboards/lyftr.json").read_text())
ALL_RULES = [
    rule
    for group in yaml.safe_load((CONFIG / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
RULES = [rule for rule in ALL_RULES if "alert" in rule]
# Of a database that these tests' servers do not have.
ELSEWHERE = ("lyftr_unfolded_batches", "lyftr_standby")
RUNBOOK = "https://github.com/lyftr/lyftr-server/blob/main/docs/runbook.md"
# request_latency_ms is the name that users of the contract know; the same in seconds is beside it.
LINT_ALLOWED = ("request_latency_ms ",)


def needs(program: str, package: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not here (Debian: {package})")


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, **options
    )


def expressions(node: Any) -> Iterator[str]:
    """Yield every PromQL expression of a dashboard, with Grafana's variables filled in."""
    filled = {"$__rate_interval": "1m", "$instance": ".*", "$job": "lyftr"}
    if isinstance(node, dict):
        for key, value in node.items():
            if key in {"expr", "query"} and isinstance(value, str) and value != "prometheus":
                # label_values(selector, label) is Grafana's own; the selector is PromQL.
                expression = re.sub(r"^label_values\((.*), \w+\)$", r"\1", value)
                yield re.sub(r"\$\w+", lambda name: filled[name[0]], expression)
            else:
                yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


PANELS = [
    pytest.param(list(expressions(panel)), id=panel["title"])
    for panel in DASHBOARD["panels"]
    if panel["type"] != "row"
]
EVERY_EXPRESSION = [*expressions(DASHBOARD), *(rule["expr"] for rule in RULES)]


def selectors(expression: str) -> set[str]:
    return set(re.findall(r"[a-zA-Z_:][\w:]*\{[^}]*\}", expression))


# -- rules and dashboard, by themselves


def test_prometheus_accepts_its_configuration_and_the_rules() -> None:
    needs("promtool", "prometheus")
    checked = run("promtool", "check", "config", CONFIG / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(ALL_RULES)} rules found" in checked.stdout


@pytest.mark.slow
def test_rules_fire_on_bad_series_and_are_silent_on_healthy_ones() -> None:
    needs("promtool", "prometheus")
    tested = run("promtool", "test", "rules", CONFIG / "alerts.test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_each_rule_has_a_series_that_fires_it() -> None:
    tests = yaml.safe_load((CONFIG / "alerts.test.yml").read_text())["tests"]
    fired = {
        case["alertname"]
        for test in tests
        for case in test.get("alert_rule_test", ())
        if case["exp_alerts"]
    }
    assert fired == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule["alert"]) for rule in RULES])
def test_a_rule_says_what_is_wrong_and_where_to_read_on(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert notes["summary"]
    assert notes["description"]
    runbook = "{{ $externalLabels.lyftr_runbook }}"
    assert notes["runbook_url"] == f"{runbook}#alert-{rule['alert'].lower()}"


def test_the_runbook_has_a_chapter_for_each_rule() -> None:
    chapters = anchors((ROOT / "docs/runbook.md").read_text())
    pointed_at = {rule["annotations"]["runbook_url"].partition("#")[2] for rule in RULES}
    assert pointed_at == {anchor for anchor in chapters if anchor.startswith("alert-lyftr")}


def test_the_dashboard_is_at_home_in_any_grafana() -> None:
    """It asks for its data source and its job, and names neither."""
    variables = [each["name"] for each in DASHBOARD["templating"]["list"]]
    assert variables == ["datasource", "job", "instance"]
    text = json.dumps(DASHBOARD)
    uids = set(re.findall(r'"uid": "([^"]*)"', text))
    assert uids == {"lyftr", "${datasource}", "-- Grafana --"}
    asked = [selector for each in expressions(DASHBOARD) for selector in selectors(each)]
    assert len(re.findall(r'job=~\\"\$job\\"', text)) >= len(set(asked)) > 20


def test_the_dashboard_is_laid_out_and_asks_one_source() -> None:
    wanted = {"type": "prometheus", "uid": "${datasource}"}
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"] == panel["datasource"] == wanted
        if panel["type"] == "timeseries":
            assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identities)) == len(identities)
    assert re.fullmatch("[0-9]+[sm]", DASHBOARD["refresh"])


def test_compose_mounts_what_is_there_and_where_it_is_looked_for() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounts = {}
    for service in services.values():
        for volume in service.get("volumes", ()):
            source, inside, *_ = volume.split(":")
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{source} is mounted, but is not there"
                mounts[inside] = ROOT / source
    assert mounts["/etc/grafana/provisioning"] == CONFIG / "grafana/provisioning"

    (provider,) = yaml.safe_load(
        (CONFIG / "grafana/provisioning/dashboards/lyftr.yml").read_text()
    )["providers"]
    assert mounts[provider["options"]["path"]] == CONFIG / "grafana/dashboards"

    # Rules are named relative to prometheus.yml: inside, too, they are beside it.
    (prometheus,) = (Path(inside) for inside in mounts if inside.endswith("/prometheus.yml"))
    assert mounts[str(prometheus.with_name("alerts.yml"))] == CONFIG / "alerts.yml"

    scraped = yaml.safe_load((CONFIG / "prometheus.yml").read_text())["scrape_configs"]
    target = scraped[0]["static_configs"][0]["targets"][0]
    sources = yaml.safe_load(
        (CONFIG / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )
    for address in (f"http://{target}", sources["datasources"][0]["url"]):
        assert urllib.parse.urlsplit(address).hostname in services


# -- the real server and a real Prometheus


class Prometheus:
    """A running Prometheus, ended with the `with`."""

    def __init__(self, folder: Path) -> None:
        address = f"127.0.0.1:{free_port()}"
        self._url = f"http://{address}/api/v1"
        self._log = folder / "log"
        command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, f"--web.listen-address={address}", "--log.level=warn"],
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> "Prometheus":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()

    def api(self, path: str, **query: str) -> Any:
        url = f"{self._url}/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            answer = json.load(response)
        assert answer["status"] == "success"
        return answer["data"]

    def ask(self, expression: str) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self.api("query", query=expression)["result"]
        return result

    def wait_for(self, look: Callable[[], Any], seconds: float = 60) -> Any:
        """Return what `look` finds, once it finds something."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self._log.read_text()
            with contextlib.suppress(OSError):
                if found := look():
                    return found
            time.sleep(0.1)
        raise AssertionError(f"waited {seconds} s in vain\n{self._log.read_text()}")


def configure(folder: Path, port: int) -> None:
    """Write our configuration there, for a server on this port, looked at every second."""
    shutil.copy(CONFIG / "alerts.yml", folder)
    settings = yaml.safe_load((CONFIG / "prometheus.yml").read_text())
    hurried = ("scrape_interval", "scrape_timeout", "evaluation_interval")
    settings["global"] |= dict.fromkeys(hurried, "1s")
    settings["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))


def talk(server: RunningServer) -> None:
    """Send messages that end in several ways, and read them."""
    assert [server.deliver(message(f"m{n}")).status for n in range(5)] == [200] * 5
    assert server.deliver(message("m1")).status == 200
    assert server.deliver(message("m2", text="other words")).status == 200
    assert server.deliver(message("m3"), signature="0" * 64).status == 401
    assert server.deliver({}).status == 422
    for path in ("/messages", "/stats", "/health/ready"):
        assert server.get(path).status == 200


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus with our configuration that has watched a server take a few messages."""
    needs("prometheus", "prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    with RunningServer(tmp_path_factory.mktemp("server")) as server:
        configure(folder, server.port)
        with Prometheus(folder) as prometheus:
            prometheus.wait_for(lambda: prometheus.ask("lyftr_ready == 1"))
            talk(server)
            # A series that begins with its first request has a rate from the second scrape on.
            both = (
                'increase(webhook_requests_total{result="conflict"}[1m]) > 0'
                ' and on (job) rate(http_requests_total{status="422"}[1m])'
            )
            prometheus.wait_for(lambda: prometheus.ask(both))
            yield prometheus


@pytest.mark.slow
def test_prometheus_reads_our_metrics(watched: Prometheus) -> None:
    (target,) = watched.api("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert target["labels"]["job"] == "lyftr"


@pytest.mark.slow
@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_has_data(watched: Prometheus, panel: list[str]) -> None:
    for expression in panel:
        assert watched.ask(expression), f"nothing for {expression}"


@pytest.mark.slow
def test_every_series_that_a_rule_or_a_panel_names_is_there(watched: Prometheus) -> None:
    wanted = {each for expression in EVERY_EXPRESSION for each in selectors(expression)}
    # A server that is well has no 5xx; with any other status the series is the same.
    asked = {selector.replace('"5.."', '"2.."') for selector in wanted}
    asked = {selector for selector in asked if not selector.startswith(ELSEWHERE)}
    missing = [selector for selector in sorted(asked) if not watched.ask(selector)]
    assert not missing
    names = {selector.partition("{")[0] for selector in wanted}
    assert {"up", "lyftr_ready", "http_requests_total", "lyftr_commit_seconds_bucket"} <= names
    # No name stands outside a selector, where this test would not see it.
    bare = " ".join(re.sub(r"\{[^}]*\}", "{}", expression) for expression in EVERY_EXPRESSION)
    assert not re.findall(r"\b(?:lyftr|http|webhook|request|process)_\w+\b(?!\{)", bare)


@pytest.mark.slow
def test_every_rule_is_evaluated_and_only_the_conflict_fires(watched: Prometheus) -> None:
    def evaluated() -> Any:
        groups = watched.api("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        fires = any(rule.get("state") == "firing" for rule in rules)
        return fires and all(rule["health"] != "unknown" for rule in rules) and rules

    rules = watched.wait_for(evaluated)
    alerts = [alert for rule in rules for alert in rule.get("alerts", ())]
    (alert,) = (alert for alert in alerts if alert["state"] == "firing")
    assert alert["annotations"]["runbook_url"] == f"{RUNBOOK}#alert-lyftrconflicts"
    assert {rule["name"]: rule.get("lastError") for rule in rules} == {
        rule.get("alert", rule.get("record")): None for rule in ALL_RULES
    }
    active = {rule["name"] for rule in rules if rule.get("state", "inactive") != "inactive"}
    assert active == {"LyftrConflicts"}


def test_promtool_finds_no_fault_in_the_metrics(server: RunningServer) -> None:
    needs("promtool", "prometheus")
    talk(server)
    checked = run("promtool", "check", "metrics", input=server.get("/metrics").body.decode())
    notes = [
        line for line in checked.stderr.splitlines() if line and not line.startswith(LINT_ALLOWED)
    ]
    assert not notes


def test_a_lost_database_shows_in_the_metrics_without_a_message(
    server_factory: ServerFactory,
) -> None:
    server = server_factory(errors_expected=True)
    assert "lyftr_ready 1.0" in server.get("/metrics").body.decode().splitlines()
    server.database.unlink()
    deadline = time.monotonic() + 60
    lines = [""]
    while "lyftr_ready 0.0" not in lines and time.monotonic() < deadline:
        lines = server.get("/metrics").body.decode().splitlines()
    assert "lyftr_ready 0.0" in lines
    assert "lyftr_storage_errors_total 0.0" not in lines


# -- systemd


def unit() -> configparser.RawConfigParser:
    parsed = configparser.RawConfigParser(strict=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string((CONFIG / "lyftr-server.service").read_text())
    return parsed


@pytest.mark.parametrize("name", ["lyftr-server.service", "lyftr-forward@.service"])
def test_systemd_accepts_the_unit(tmp_path: Path, name: str) -> None:
    needs("systemd-analyze", "systemd")
    text = (CONFIG / name).read_text()
    program = unit()["Service"]["ExecStart"].split()[0]
    copy = tmp_path / name.replace("@", "@crm")
    # Everything but the path of the program, which is not installed here.
    copy.write_text(text.replace(program, sys.executable))
    verified = run("systemd-analyze", "verify", copy)
    complaints = [line for line in verified.stderr.splitlines() if "lyftr-" in line]
    assert (verified.returncode, complaints) == (0, [])


def test_the_unit_agrees_with_the_package() -> None:
    service = unit()["Service"]
    package = configparser.ConfigParser()
    package.read(ROOT / "setup.cfg")
    program, command = service["ExecStart"].split()
    assert f"{Path(program).name} =" in package["options.entry_points"]["console_scripts"]
    assert command == "serve"
    assert float(service["TimeoutStopSec"]) > Config(secrets=(b"k",)).drain_seconds
    assert service["Environment"] == (
        f"DATABASE_URL=sqlite:////var/lib/{service['StateDirectory']}/app.db"
    )
    assert service["RestartPreventExitStatus"] == "2"


def test_the_unit_that_hands_on_starts_what_there_is(tmp_path: Path) -> None:
    text = (CONFIG / "lyftr-forward@.service").read_text()
    (line,) = re.findall("^ExecStart=(.*)$", text, re.MULTILINE)
    program, *arguments = line.replace("${FORWARD_TO}", "ftp://x").split()
    assert program == unit()["Service"]["ExecStart"].split()[0]
    ended = subprocess.run(
        [sys.executable, "-m", "lyftr_server", *arguments],
        env=environment(FORWARD_SECRET="a2V5"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    # It takes the options; what it does not take is the target.
    assert (ended.returncode, "--to must look like" in ended.stderr) == (2, True)


def test_the_server_tells_systemd_how_it_is(tmp_path: Path, server_factory: ServerFactory) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)

        def hear(state: bytes) -> None:
            while state not in systemd.recv(4096).splitlines():
                pass

        server = server_factory(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="2000000")
        hear(b"READY=1")
        assert server.get("/health/ready").status == 200
        for _ in range(2):
            before = time.monotonic()
            hear(b"WATCHDOG=1")
            assert time.monotonic() - before < 2
        server.terminate()
        hear(b"STOPPING=1")
        assert server.wait() == 0


# -- the environment file


def example() -> dict[str, str]:
    """Return every variable of the example, commented out or not."""
    text = (CONFIG / "lyftr.env.example").read_text()
    pairs = re.findall(r"^#?([A-Z_]+)=(.*)$", text, re.MULTILINE)
    assert len(dict(pairs)) == len(pairs), "a variable is there twice"
    return dict(pairs)


def test_the_example_names_every_variable_with_its_default() -> None:
    assert example() == {name: default or "" for name, (default, _) in VARIABLES.items()}


def test_each_variable_of_the_example_comes_with_an_explanation() -> None:
    paragraphs = (CONFIG / "lyftr.env.example").read_text().split("\n\n")[1:]
    for paragraph in paragraphs:
        assert re.search(r"^#?[A-Z_]+=", paragraph, re.MULTILINE), paragraph
        assert re.match(r"# [A-Z].{20}", paragraph), paragraph


def test_the_example_as_it_is_lacks_nothing_but_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    text = (CONFIG / "lyftr.env.example").read_text()
    (tmp_path / ".env").write_text(
        text.replace("WEBHOOK_SECRET=\n", f"WEBHOOK_SECRET={SECRET}\n", 1)
    )
    assert Config.from_environ() == Config(secrets=(SECRET.encode(),))
