"""The soak for some seconds, and whether it would see what grows."""

from dataclasses import replace

import pytest

from ..conftest import ServerFactory
from ..soak import Figures, growth, run

STEADY = [Figures(60.0 + n, 60.0 + n / 10, 36, 8, 4.4, 10.0) for n in range(10)]


@pytest.mark.slow
def test_a_server_stays_as_it_was_under_mixed_load(
    database: dict[str, str], server_factory: ServerFactory
) -> None:
    assert run(server_factory(**database), seconds=6, interval=0.75) == []


def test_a_server_that_stays_as_it_was_is_not_accused() -> None:
    assert growth(STEADY) == []


@pytest.mark.parametrize(
    "name, step",
    [("rss_mb", 3.0), ("files", 1), ("threads", 1), ("wal_mb", 3.0)],
)
def test_what_grows_is_named(name: str, step: float) -> None:
    grown = [
        replace(each, **{name: getattr(each, name) + n * step}) for n, each in enumerate(STEADY)
    ]
    (fault,) = growth(grown)
    assert fault.startswith(f"{name} grew from")
