"""Beside each attack, in small: deliveries go through, and the server stays small.

How long they wait is for a machine that does nothing else: `make attack`.
"""

import pytest

from . import crowd
from .__main__ import measure, run
from .crowd import ATTACKS

# Generous: a machine may be busy with other tests.
WORST_MS = 10_000
# What a server takes without any client is 45 MB.
RSS_MB = {"nothing": 60, "pages": 120, "exports": 120, "files": 120, "uploads": 160, "bodies": 160}


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_deliveries_go_through_beside(name: str) -> None:
    (outcome,) = run([name], seconds=2, texts=120, share=0.2)
    assert outcome.delivered > 0
    assert outcome.refused == 0
    assert outcome.worst_ms < WORST_MS
    assert outcome.rss_mb < RSS_MB.get(name, 200)


def test_every_attack_is_a_request_or_its_beginning() -> None:
    for attack in ATTACKS.values():
        data = attack.data()
        assert attack.clients == 0 or data.startswith((b"GET /", b"POST /"))
    assert crowd.one_byte_chunks().endswith(b"0\r\n\r\n")
    assert callable(measure)
