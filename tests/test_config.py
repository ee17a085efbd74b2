"""Configuration: each variable's default, what it takes and refuses, and all faults at once."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lyftr_server import config
from lyftr_server.config import VARIABLES, Config, ConfigError

Environ = Callable[..., None]


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Environ:
    """Set these variables and no others, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in (*VARIABLES, "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"):
        monkeypatch.delenv(name, raising=False)

    def give(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return give


def faults() -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        Config.from_environ()
    return caught.value.faults


def test_a_secret_is_all_that_must_be_given(environ: Environ) -> None:
    environ(WEBHOOK_SECRET="s")
    assert Config.from_environ() == Config(
        secrets=(b"s",),
        database=Path("data/app.db"),
        host="127.0.0.1",
        port=8000,
        log_level="INFO",
        app_name="lyftr",
        env="production",
        dedupe_by="message_id",
        read_token=None,
        max_body_bytes=1048576,
        queue_limit=10000,
        drain_seconds=10.0,
    )


def test_every_variable_is_taken(environ: Environ) -> None:
    environ(
        WEBHOOK_SECRET="new",
        WEBHOOK_SECRET_PREVIOUS="old",
        DATABASE_URL="sqlite:////var/lib/x.db",
        HOST="::1",
        PORT="9",
        LOG_LEVEL="debug",
        APP_NAME="a",
        ENV="staging",
        DEDUPE_BY="content",
        READ_TOKEN="t0ken",
        MAX_BODY_BYTES="10",
        BODY_BUDGET_BYTES="30",
        QUEUE_LIMIT="20",
        DRAIN_SECONDS="0.5",
        DRAIN_DELAY_SECONDS="2",
    )
    assert Config.from_environ() == Config(
        secrets=(b"new", b"old"),
        database=Path("/var/lib/x.db"),
        host="::1",
        port=9,
        log_level="DEBUG",
        app_name="a",
        env="staging",
        dedupe_by="content",
        read_token="t0ken",
        max_body_bytes=10,
        body_budget_bytes=30,
        queue_limit=20,
        drain_seconds=0.5,
        drain_delay_seconds=2,
    )


def test_secrets_are_not_in_the_words_for_a_configuration(environ: Environ) -> None:
    environ(WEBHOOK_SECRET="needle-1", WEBHOOK_SECRET_PREVIOUS="needle-2", READ_TOKEN="needle-3")
    assert "needle" not in repr(Config.from_environ())


@pytest.mark.parametrize(
    "url, path",
    [
        pytest.param("sqlite:///data/app.db", "data/app.db", id="three slashes are relative"),
        pytest.param("sqlite:////data/app.db", "/data/app.db", id="four are absolute"),
        pytest.param("sqlite+aiosqlite:///x.db", "x.db", id="the other scheme, relative"),
        pytest.param("sqlite+aiosqlite:////x.db", "/x.db", id="the other scheme, absolute"),
        pytest.param("sqlite:////a b/ü.db", "/a b/ü.db", id="spaces and letters"),
    ],
)
def test_database_url_names_a_file(environ: Environ, url: str, path: str) -> None:
    environ(WEBHOOK_SECRET="s", DATABASE_URL=url)
    assert Config.from_environ().database_path == Path(path)


@pytest.mark.parametrize(
    "name, value",
    [
        pytest.param("DATABASE_URL", "mysql://h/d", id="another database"),
        pytest.param("DATABASE_URL", "postgresql://h", id="a server without a database"),
        pytest.param("DATABASE_URL", "sqlite://app.db", id="two slashes"),
        pytest.param("DATABASE_URL", "sqlite:///", id="no file"),
        pytest.param("DATABASE_URL", "sqlite:///:memory:", id="no file but memory"),
        pytest.param("DATABASE_URL", "sqlite:///x.db?mode=ro", id="options"),
        pytest.param("PORT", "65536", id="port too high"),
        pytest.param("PORT", "-1", id="port below zero"),
        pytest.param("PORT", "http", id="port by name"),
        pytest.param("PORT", "８０", id="digits of another script"),
        pytest.param("PORT", "80\n", id="trailing newline"),
        pytest.param("LOG_LEVEL", "CRITICAL", id="a level that is none of ours"),
        pytest.param("DEDUPE_BY", "text", id="deduplication by something else"),
        pytest.param("READ_TOKEN", "a b", id="token with a space"),
        pytest.param("READ_TOKEN", "tökén", id="token beyond ASCII"),
        pytest.param("MAX_BODY_BYTES", "0", id="no body at all"),
        pytest.param("MAX_BODY_BYTES", "1MB", id="a unit"),
        pytest.param("QUEUE_LIMIT", "0", id="no queue"),
        pytest.param("BODY_BUDGET_BYTES", "1048575", id="no room for the largest body"),
        pytest.param("DRAIN_DELAY_SECONDS", "soon", id="a delay in words"),
        pytest.param("QUEUE_LIMIT", "1e3", id="an exponent"),
        pytest.param("DRAIN_SECONDS", "-1", id="negative patience"),
        pytest.param("DRAIN_SECONDS", "inf", id="endless patience"),
        pytest.param("DRAIN_SECONDS", "nan", id="no number"),
    ],
)
def test_a_bad_value_is_a_fault_that_names_its_variable(
    environ: Environ, name: str, value: str
) -> None:
    environ(WEBHOOK_SECRET="s", **{name: value})
    assert list(faults()) == [name]


def test_all_faults_are_told_at_once(environ: Environ) -> None:
    environ(PORT="x", LOG_LEVEL="x", DEDUPE_BY="x", DATABASE_URL="x", QUEUE_LIMIT="x")
    found = faults()
    names = {"WEBHOOK_SECRET", "PORT", "LOG_LEVEL", "DEDUPE_BY", "DATABASE_URL", "QUEUE_LIMIT"}
    assert set(found) == names
    with pytest.raises(ConfigError) as caught:
        Config.from_environ()
    assert all(name in str(caught.value) for name in names)


def test_what_does_not_fit_together_is_told_with_all_other_faults(environ: Environ) -> None:
    environ(WEBHOOK_SECRET="s", PORT="x", READ_TOKEN="t", ADMIN_TOKEN="t", MAX_BODY_BYTES="100")
    environ(BODY_BUDGET_BYTES="99")
    assert set(faults()) == {"PORT", "ADMIN_TOKEN", "BODY_BUDGET_BYTES"}
    environ(MAX_BODY_BYTES="x")
    assert set(faults()) == {"PORT", "ADMIN_TOKEN", "MAX_BODY_BYTES"}


@pytest.mark.parametrize("form", ["_PREVIOUS", "_PREVIOUS_FILE"])
@pytest.mark.parametrize(
    "name", ["STANDARD_WEBHOOKS_SECRET", "WHATSAPP_APP_SECRET", "WHATSAPP_VERIFY_TOKEN"]
)
def test_a_previous_secret_alone_is_a_fault(
    environ: Environ, tmp_path: Path, name: str, form: str
) -> None:
    (tmp_path / "secret").write_bytes(b"c2VjcmV0")
    value = str(tmp_path / "secret") if form.endswith("FILE") else "c2VjcmV0"
    environ(WEBHOOK_SECRET="s", **{f"{name}{form}": value})
    assert faults() == {name: f"must be set beside {name}_PREVIOUS"}


def test_a_fault_does_not_echo_a_secret(environ: Environ) -> None:
    environ(WEBHOOK_SECRET="needle-1", READ_TOKEN="needle 2", PORT="x")
    assert "needle" not in str(faults())


@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_without_a_secret_nothing_starts(environ: Environ, value: str | None) -> None:
    if value is not None:
        environ(WEBHOOK_SECRET=value)
    assert list(faults()) == ["WEBHOOK_SECRET"]


def test_a_secret_keeps_its_bytes(environ: Environ, monkeypatch: pytest.MonkeyPatch) -> None:
    environ()
    monkeypatch.setitem(os.environb, b"WEBHOOK_SECRET", b" k\xff\xc3\xa9 ")
    assert Config.from_environ().secrets == (b" k\xff\xc3\xa9 ",)


# -- WEBHOOK_SECRET_FILE


@pytest.mark.parametrize(
    "content, key",
    [
        pytest.param(b"filed", b"filed", id="as it is"),
        pytest.param(b"filed\n", b"filed", id="without its newline"),
        pytest.param(b"filed\r\n", b"filed", id="without its CRLF"),
        pytest.param(b"filed\n\n", b"filed\n", id="only one newline goes"),
        pytest.param(b"\xff\x00k", b"\xff\x00k", id="any bytes"),
    ],
)
def test_a_secret_can_come_from_a_file(
    environ: Environ, tmp_path: Path, content: bytes, key: bytes
) -> None:
    (tmp_path / "secret").write_bytes(content)
    environ(WEBHOOK_SECRET_FILE=str(tmp_path / "secret"))
    assert Config.from_environ().secrets == (key,)
    assert config.secret() == key


@pytest.mark.parametrize("content", [b"", b"\n"], ids=["nothing", "a newline"])
def test_an_empty_secret_file_is_a_fault(environ: Environ, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    environ(WEBHOOK_SECRET_FILE=str(tmp_path / "secret"))
    assert list(faults()) == ["WEBHOOK_SECRET_FILE"]


def test_a_missing_secret_file_is_a_fault(environ: Environ, tmp_path: Path) -> None:
    environ(WEBHOOK_SECRET_FILE=str(tmp_path / "secret"))
    assert list(faults()) == ["WEBHOOK_SECRET_FILE"]


def test_a_secret_comes_from_one_place_only(environ: Environ, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"filed")
    environ(WEBHOOK_SECRET="s", WEBHOOK_SECRET_FILE=str(tmp_path / "secret"))
    assert list(faults()) == ["WEBHOOK_SECRET_FILE"]


# -- .env


def test_env_file_fills_what_the_environment_does_not_set(environ: Environ, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WEBHOOK_SECRET=filed\nPORT=1\nAPP_NAME='a b' # why\n")
    environ(PORT="2")
    settings = Config.from_environ()
    assert (settings.secrets, settings.port, settings.app_name) == ((b"filed",), 2, "a b")


def test_env_file_keeps_a_dollar_sign(environ: Environ, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WEBHOOK_SECRET=a${HOME}$b\n")
    assert Config.from_environ().secrets == (b"a${HOME}$b",)


def test_a_fault_in_the_env_file_is_a_fault(environ: Environ, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WEBHOOK_SECRET=s\nPORT=x\n")
    assert list(faults()) == ["PORT"]


def test_an_env_file_that_cannot_be_read_is_a_fault(environ: Environ, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"WEBHOOK_SECRET=needle\xff\n")
    environ(WEBHOOK_SECRET="s")
    found = faults()
    assert list(found) == [".env"]
    assert "needle" not in str(found)


# -- for commands that need one variable


def test_one_setting_can_be_asked_for(environ: Environ) -> None:
    environ(PORT="9")
    assert (config.setting("PORT"), config.setting("HOST")) == (9, "127.0.0.1")
    assert config.setting("READ_TOKEN") is None


def test_one_bad_setting_is_a_fault(environ: Environ) -> None:
    environ(PORT="x")
    with pytest.raises(ConfigError, match="PORT"):
        config.setting("PORT")


def test_the_key_to_sign_with_must_be_set(environ: Environ) -> None:
    with pytest.raises(ConfigError, match="WEBHOOK_SECRET"):
        config.secret()
    environ(WEBHOOK_SECRET="s")
    assert config.secret() == b"s"


# -- systemd


def test_systemd_is_heard_only_when_it_speaks_to_this_process(environ: Environ) -> None:
    assert (config.notify_socket(), config.watchdog_seconds()) == (None, None)
    environ(NOTIFY_SOCKET="/run/n", WATCHDOG_USEC="30000000")
    assert (config.notify_socket(), config.watchdog_seconds()) == ("/run/n", 30.0)
    environ(WATCHDOG_PID=str(os.getpid()))
    assert config.watchdog_seconds() == 30.0
    environ(WATCHDOG_PID="1")
    assert config.watchdog_seconds() is None
