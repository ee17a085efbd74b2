"""The server with one fault built in on purpose, or one limit made small: python launcher.py ...

Stands in for run.py where a test has to see that it would notice.
"""

import argparse
import sqlite3
import sys

from lyftr_server import log
from lyftr_server.__main__ import main
from lyftr_server.store.sqlite import opening


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--synchronous", help="PRAGMA synchronous, other than FULL")
    parser.add_argument("--log-limit", type=int, help="bytes of the log that may wait")
    parser.add_argument("--close-seconds", type=float, help="how long closing may take")
    parser.add_argument("--commit-seconds", type=float, help="how long PostgreSQL may take")
    return parser.parse_args()


def set_synchronous(mode: str) -> None:
    make_durable = opening._make_durable

    def weaken(db: sqlite3.Connection) -> None:
        make_durable(db)
        db.execute(f"PRAGMA synchronous = {mode}")

    opening._make_durable = weaken


def set_log_limit(limit: int) -> None:
    log.Output.__init__.__defaults__ = (1, limit)


if __name__ == "__main__":
    options = parse()
    if options.synchronous:
        set_synchronous(options.synchronous)
    if options.log_limit:
        set_log_limit(options.log_limit)
    if options.close_seconds:
        from lyftr_server import server

        server.CLOSE_SECONDS = options.close_seconds
    if options.commit_seconds:
        from lyftr_server.store.postgres import store as postgres

        postgres.COMMIT_SECONDS = options.commit_seconds
    sys.exit(main(["serve"]))
