"""python -m tests.run_postgres: two servers on one PostgreSQL of this machine, to look around.

The database stays in its folder; its programs are the wheel's of the test extra, or the system's.
PORT is the first server's, and the next one the second's; 0 lets each take a free one.
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

from .postgres import PostgresServer, find_programs

DATABASE = "lyftr"


class KeptServer(PostgresServer):
    """A server whose database outlives it, with syncs as PostgreSQL has them."""

    def _make(self) -> None:
        new = not (self.data / "PG_VERSION").exists()
        if new:
            self._initialize()
        self.start()
        if new:
            self.ask(lambda db: db.execute(f"CREATE DATABASE {DATABASE}"), "postgres")

    def __exit__(self, *_: object) -> None:
        self.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.run_postgres", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("data/postgres"))
    folder = parser.parse_args().folder.resolve()
    os.environ.setdefault("LYFTR_POSTGRES", "wheel")
    programs = find_programs()
    if programs is None:
        print("PostgreSQL is not here: apt-get install postgresql", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    first = int(os.environ.get("PORT") or 8000)
    servers: list[subprocess.Popen[bytes]] = []
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        for server in servers:
            server.terminate()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with KeptServer(programs, options="", base=folder) as postgres:
        try:
            for port in (first, first and first + 1):
                if stopped:
                    break
                variables = {"DATABASE_URL": postgres.url(DATABASE), "PORT": str(port)}
                servers.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "lyftr_server", "serve"],
                        env=os.environ | variables,
                        start_new_session=True,
                    )
                )
            if stopped:
                stop()  # perhaps it came as one was being started
            # One that was told to stop before it could listen to that has a status below zero.
            return max([0, *(server.wait() for server in servers)])
        finally:
            stop()
            for server in servers:
                server.wait()


if __name__ == "__main__":
    sys.exit(main())
