"""lyftr-server serve: run the server until it is told to stop."""

import argparse
import contextlib
import logging
import os

from ..config import Config, ConfigError, override, setting
from ..log import JsonLines, Output, ReadableOutput, event
from . import Commands, add

logger = logging.getLogger(__name__)


def add_to(commands: Commands) -> None:
    parser = add(
        commands,
        "serve",
        "run the server",
        details="Configured by environment variables and ./.env. SIGTERM or SIGINT stops it:\n"
        "requests in flight finish, then it ends with status 0. A second signal ends it at once.",
        examples="  WEBHOOK_SECRET=testsecret lyftr-server serve\n"
        "  WEBHOOK_SECRET=testsecret lyftr-server serve --port 9000 --database sqlite:///other.db",
    )
    parser.add_argument("--host", help="where to listen, instead of HOST")
    parser.add_argument("--port", help="instead of PORT; 0 is a free one")
    parser.add_argument(
        "--database",
        metavar="URL",
        help="instead of DATABASE_URL; without a password, which everybody could read (ps)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    override(HOST=options.host, PORT=options.port, DATABASE_URL=options.database)
    output = _output()
    try:
        return _serve(output)
    finally:
        output.close()


def _output() -> Output:
    try:
        form = setting("LOG_FORMAT")
    except ConfigError:
        form = None  # told together with all other faults
    text = os.isatty(1) if form is None else form == "text"
    return ReadableOutput() if text else Output()


def _serve(output: Output) -> int:
    # Until the configuration is known its faults are told in its own form.
    JsonLines(output).install("INFO")
    with contextlib.suppress(ConfigError):
        JsonLines(output, setting("APP_NAME"), setting("ENV")).install("INFO")
    try:
        settings = Config.from_environ()
    except ConfigError as error:
        event(logger, logging.ERROR, "configuration_invalid", faults=error.faults)
        return 2
    lines = JsonLines(output, settings.app_name, settings.env)
    lines.install(settings.log_level)
    # Importing the server takes a quarter of a second, which a fault need not wait for.
    from ..server import Unstartable, run

    try:
        return run(settings, output, lines)
    except Unstartable as error:
        event(logger, logging.ERROR, "cannot_start", detail=str(error))
        return 1 if error.may_pass else 2
    except Exception as error:  # our own mistake: whoever reads the log hears of it all the same
        event(logger, logging.CRITICAL, "failed", detail=f"{type(error).__name__}: {error}")
        return 1
