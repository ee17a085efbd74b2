"""One server for a whole file of tests, and the checks that hold after each of them."""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..process import RunningServer, as_body, message
from .raw import Raw, request

LAUNCHER = ("-m", "tests.http1.launcher")

# Short enough for a test to wait for.
IMPATIENT = {
    "head_seconds": 0.6,
    "body_seconds": 0.8,
    "idle_seconds": 1.0,
    "write_seconds": 0.8,
    "linger_seconds": 0.5,
    "sweep_seconds": 0.05,
}


class Target(RunningServer):
    """A server that requests of all kinds are thrown at."""

    def __init__(self, folder: Path, limits: dict[str, Any] | None = None, **options: Any) -> None:
        variables = options.pop("variables", {})
        variables = {"TEST_LIMITS": json.dumps(limits or {})} | variables
        super().__init__(folder, command=LAUNCHER, variables=variables, **options)

    def raw(self, **options: Any) -> Raw:
        return Raw(self.port, **options)

    def delivery(self, content: Any = None, headers: dict[str, str] | None = None) -> bytes:
        """Return the bytes of a signed delivery."""
        body = as_body(message() if content is None else content)
        return request("POST", "/webhook", self.signed(body) | (headers or {}), body)

    def samples(self) -> dict[str, float]:
        """Return every sample of /metrics."""
        text = self.get("/metrics").body.decode()
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def sample(self, name: str) -> float:
        return self.samples().get(name, 0)

    def stored(self) -> int:
        return int(self.sample("lyftr_stored_messages"))

    def rss(self) -> int:
        """Return the resident memory in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) << 10

    def mark(self) -> int:
        return self.log.stat().st_size

    def lines_since(self, mark: int) -> list[dict[str, Any]]:
        """Return the lines of requests after `mark`, so far."""
        text = self.log.read_bytes()[mark:].rpartition(b"\n")[0].decode("ascii")
        return [line for line in map(json.loads, text.splitlines()) if "method" in line]

    def settle(self) -> None:
        """Hold that no connection, no request and no byte of the budget is left over."""

        def quiet() -> bool:
            samples = self.samples()
            # The scrape is one of each.
            in_hand = samples["lyftr_requests_in_flight"], samples["lyftr_connections"]
            return in_hand == (1, 1) and samples["lyftr_body_bytes"] == 0

        wait_until(quiet)

    def check_account(self) -> None:
        """Hold that each request was counted once, and logged once or summed up with others."""
        self.settle()
        samples = self.samples()
        counted = sum(
            value for name, value in samples.items() if name.startswith("http_requests_total{")
        )
        # The scrape that told us was counted after it was written.
        wait_until(lambda: len(self.requests()) + self.summed_up().total() >= counted + 1)
        summed = self.summed_up()
        assert len(self.requests()) + summed.total() == counted + 1
        results = [line["result"] for line in self.requests() if "result" in line]
        for kind, count in summed.items():
            status, _, route = kind.partition(" ")
            if route.startswith("/webhook") and status in RESULT_OF:
                results += [RESULT_OF[status]] * count
        for name, value in samples.items():
            match = re.fullmatch(r'webhook_requests_total\{result="(.*)"\}', name)
            if match:
                assert results.count(match[1]) == value, match[1]

    def summed_up(self) -> Counter[str]:
        """Return how many requests of each kind have no line of their own."""
        lines = self.events("refused_requests_summed_up")
        return sum((Counter(line["requests"]) for line in lines), Counter())


# What becomes of deliveries whose lines may be summed up, by status.
RESULT_OF = {"401": "invalid_signature", "408": "aborted", "413": "too_large", "499": "aborted"}


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def patient_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with Target(tmp_path_factory.mktemp("patient"), errors_expected=True) as target:
        yield target
        target.check_account()


@pytest.fixture(scope="module")
def impatient_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("impatient")
    with Target(folder, IMPATIENT, errors_expected=True) as target:
        yield target
        target.check_account()


@pytest.fixture
def target(patient_server: Target) -> Iterator[Target]:
    """A server with the usual limits, shared by the tests of a file; quiet after each."""
    yield patient_server
    patient_server.settle()


@pytest.fixture
def impatient(impatient_server: Target) -> Iterator[Target]:
    """A server that waits for nobody, shared by the tests of a file; quiet after each."""
    yield impatient_server
    impatient_server.settle()
