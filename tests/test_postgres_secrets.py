"""TLS by the URL, and passwords that nobody else reads: not in a log line, an error or `ps`."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import ServerFactory
from .postgres import PostgresServer
from .process import message
from .test_postgres import refused

PASSWORD = "a-p4ssword-of-ours"
WHO = "guarded"
HBA = f"hostssl all {WHO} 127.0.0.1/32 scram-sha-256\nhost all {WHO} 127.0.0.1/32 reject\n"


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a certificate of 127.0.0.1 that is its own authority; return it and its key."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.fixture(scope="module")
def certificate(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Let a role in by TLS and password alone; yields the authority that clients trust."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    folder = tmp_path_factory.mktemp("tls")
    ours, key = make_certificate(folder, "server")
    make_certificate(folder, "another")
    for source, name in ((ours, "server.crt"), (key, "server.key")):
        target = postgres.data / name
        shutil.copy(source, target)
        target.chmod(0o600)
        shutil.chown(target, postgres.data.owner())
    rules = postgres.data / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(HBA + before)

    async def guard(db: Any) -> bool:
        if await db.fetchval("SHOW ssl_library") == "":
            return False
        await db.execute("ALTER SYSTEM SET ssl = on")
        await db.execute(f"CREATE ROLE {WHO} LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
        await db.execute("SELECT pg_reload_conf()")
        return True

    if not postgres.ask(guard, "postgres"):
        rules.write_text(before)
        pytest.skip("this PostgreSQL was built without TLS")
    while postgres.ask(lambda db: db.fetchval("SHOW ssl"), "postgres") != "on":
        pass
    yield ours
    rules.write_text(before)


@pytest.fixture
def url(postgres_url: str, certificate: Path) -> str:
    """Who and where, without a password."""
    return postgres_url.replace("postgres@", f"{WHO}@")


def with_password(url: str, password: str = PASSWORD) -> str:
    return url.replace(f"{WHO}@", f"{WHO}:{password}@")


@pytest.mark.parametrize("where", ["DATABASE_URL_FILE", "PGPASSFILE"])
def test_a_password_stands_in_a_file_and_nowhere_else(
    tmp_path: Path,
    url: str,
    certificate: Path,
    where: str,
    server_factory: ServerFactory,
    postgres: PostgresServer,
) -> None:
    whole = f"{url}?sslmode=verify-full&sslrootcert={certificate}"
    file = tmp_path / "secret"
    if where == "PGPASSFILE":
        file.write_text(f"127.0.0.1:*:*:{WHO}:{PASSWORD}\n")
        given = {"DATABASE_URL": whole}
    else:
        file.write_text(with_password(whole) + "\n")
        given = {"DATABASE_URL": ""}
    file.chmod(0o600)
    server = server_factory(**given, **{where: str(file)})
    assert server.deliver(message("m1")).status == 200
    sql = (
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = $1"
    )
    assert postgres.ask(lambda db: db.fetchval(sql, WHO), "postgres")
    line = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
    assert PASSWORD.encode() not in line
    assert PASSWORD not in server.text()
    assert PASSWORD not in server.get("/metrics").body.decode()


@pytest.mark.parametrize(
    "password, mode, words",
    [
        pytest.param("another-p4ssword", "require", "password authentication", id="password"),
        pytest.param(PASSWORD, "disable", "pg_hba", id="no TLS"),
        pytest.param(PASSWORD, "verify-full&sslrootcert={}", "certificate", id="authority"),
    ],
)
def test_what_is_refused_is_said_without_the_password(
    tmp_path: Path, url: str, certificate: Path, password: str, mode: str, words: str
) -> None:
    mode = mode.format(certificate.with_name("another.crt"))
    status, log = refused(
        tmp_path, DATABASE_URL=f"{with_password(url, password)}?sslmode={mode}", WAIT_SECONDS="0.1"
    )
    assert status == 2  # only a person can mend it
    assert words in log
    assert password not in log
