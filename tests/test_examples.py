"""The examples, each checked by its own tool; and the proxies, with a server behind them."""

import http.client
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from lyftr_server import __version__

from .conftest import ServerFactory
from .ports import free_port
from .process import ROOT, Answer, as_body, ask, message

EXAMPLES = ROOT / "examples"
SITE = "messages.example.com"


def need(program: str) -> str:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"there is no {program} on this machine")
    return found


@contextmanager
def running(command: list[str], port: int, **environment: str) -> Iterator[None]:
    """Run a proxy until the end of the block, once it listens."""
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as proxy:
        try:
            while True:
                assert proxy.poll() is None, proxy.stderr and proxy.stderr.read()
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield
        finally:
            proxy.terminate()
            proxy.communicate()


@contextmanager
def nginx(folder: Path, port: int, upstream: int) -> Iterator[None]:
    """The example as it stands, but for its ports, and with TLS left out."""
    site = (EXAMPLES / "nginx.conf").read_text()
    site = site.replace("127.0.0.1:8000", f"127.0.0.1:{upstream}")
    site = site.replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
    site = "\n".join(line for line in site.splitlines() if "ssl_certificate" not in line)
    with nginx_with(folder, site, port):
        yield


@contextmanager
def nginx_with(folder: Path, site: str, port: int) -> Iterator[None]:
    program = need("nginx")
    config = folder / "nginx.conf"
    paths = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off;\n{paths}{site}\n}}\n"
    )
    subprocess.run([program, "-t", "-c", config], check=True, capture_output=True)
    with running([program, "-c", str(config)], port):
        yield


@contextmanager
def caddy(folder: Path, port: int, upstream: int) -> Iterator[None]:
    program = need("caddy")
    config = folder / "Caddyfile"
    # Its administration would listen on a port of its own.
    config.write_text("{\n\tadmin off\n}\n" + (EXAMPLES / "Caddyfile").read_text())
    variables = {
        "LYFTR_SITE": f"http://{SITE}:{port}",
        "LYFTR_UPSTREAM": f"127.0.0.1:{upstream}",
        "HOME": str(folder),
    }
    command = [program, "run", "--adapter", "caddyfile", "--config", str(config)]
    with running(command, port, **variables):
        yield


def through(
    port: int, method: str, target: str, body: bytes | None = None, **headers: str
) -> Answer:
    """Ask by way of the proxy."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        return ask(connection, method, target, body, {"Host": SITE, **headers})
    finally:
        connection.close()


PROXIES = [pytest.param(nginx, id="nginx"), pytest.param(caddy, id="caddy")]


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_delivery_and_a_stream_pass_a_proxy(
    proxy: type, server_factory: ServerFactory, tmp_path: Path
) -> None:
    server = server_factory(ALLOWED_HOSTS=SITE, TRUSTED_PROXIES="127.0.0.1")
    port = free_port()
    body = as_body(message(text="ü"))
    with proxy(tmp_path, port, server.port):
        for _ in range(2):
            answer = through(port, "POST", "/webhook", body, **server.signed(body))
            assert (answer.status, answer.body) == (200, b'{"status": "ok"}')
        listing = through(port, "GET", "/messages?q=%C3%9C").json()
        assert [row["message_id"] for row in listing["data"]] == ["m1"]
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(f"GET /messages.ndjson HTTP/1.1\r\nHost: {SITE}\r\n\r\n".encode())
            received = b""
            while b'"m1"' not in received:
                received += client.recv(65536) or pytest.fail(f"no row came: {received!r}")


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_body_that_is_too_large_is_refused_through_a_proxy(
    proxy: type, server_factory: ServerFactory, tmp_path: Path
) -> None:
    server = server_factory(ALLOWED_HOSTS=SITE)
    port = free_port()
    with proxy(tmp_path, port, server.port):
        body = b"x" * (1 << 20) + b"x"
        assert through(port, "POST", "/webhook", body).status == 413
        assert through(port, "GET", "/stats").json()["total_messages"] == 0


def test_of_two_servers_behind_one_port_either_may_go(
    postgres_url: str, server_factory: ServerFactory, tmp_path: Path
) -> None:
    """The compose file's front, with its names and port changed to ours."""
    first, second = (server_factory(DATABASE_URL=postgres_url) for _ in range(2))
    port = free_port()
    site = (ROOT / "config" / "nginx-postgres.conf").read_text()
    for name, here in (("api-1:8000", first.port), ("api-2:8000", second.port), ("8080", port)):
        site = site.replace(name, f"127.0.0.1:{here}")
    with nginx_with(tmp_path, site, port):
        for n in range(12):
            if n == 6:
                first.kill()
            body = as_body(message(f"m{n}"))
            headers = {"Host": "h", **second.signed(body)}
            assert through(port, "POST", "/webhook", body, **headers).status == 200
        assert through(port, "GET", "/messages", Host="h").json()["total"] == 12


MANIFESTS = sorted((EXAMPLES / "kubernetes").glob("*.yaml"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_is_valid(path: Path) -> None:
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", "--quiet", str(path)]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_is_as_safe_as_the_compose_file(path: Path) -> None:
    documents = list(yaml.safe_load_all(path.read_text()))
    (deployment,) = (each for each in documents if each["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"].endswith(f":v{__version__}")
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert container["resources"]["limits"]["memory"]
    budget = [each for each in documents if each["kind"] == "PodDisruptionBudget"]
    if deployment["spec"]["replicas"] == 1:
        assert deployment["spec"]["strategy"]["type"] == "Recreate"
    else:
        assert budget[0]["spec"]["minAvailable"] < deployment["spec"]["replicas"]
