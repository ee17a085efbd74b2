"""The server does what /openapi.json says, whatever schemathesis makes of it."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi import checks

from lyftr_server.openapi import document
from lyftr_server.signature import sign

from ..process import SECRET
from .conftest import Target

pytestmark = pytest.mark.slow

# A stream does not end by itself; its own tests read it.
schema: Any = schemathesis.openapi.from_dict(document()).exclude(path="/messages/stream")

# A route without its secret is 404.
EVERY_ROUTE = {
    "WHATSAPP_APP_SECRET": "whatsapp-app-secret",
    "WHATSAPP_VERIFY_TOKEN": "whatsapp-verify-token",
    "TWILIO_AUTH_TOKEN": "twilio-auth-token",
    "PUBLIC_URL": "https://hooks.example.com",
    "ADMIN_TOKEN": "admin-token",
}


class Signed(requests.auth.AuthBase):
    """Signs a body as it is sent."""

    def __call__(self, prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        body = prepared.body or b""
        body = body.encode() if isinstance(body, str) else body
        prepared.headers["X-Signature"] = sign(SECRET.encode(), body)
        return prepared


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("described")
    with Target(folder, variables=EVERY_ROUTE, errors_expected=True) as target:
        yield target
        target.check_account()


@schema.parametrize()
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
def test_answers_are_as_described(described: Target, case: Any) -> None:
    signed = Signed() if case.path == "/webhook" else None
    # Not held: that what fits the schema is accepted (from and its alias must agree, a cursor must
    # be one of ours), and that what lacks a signature is refused (it is signed on the way).
    unheld = [
        checks.positive_data_acceptance,
        checks.negative_data_rejection,
        checks.missing_required_header,
    ]
    case.call_and_validate(base_url=described.url, auth=signed, excluded_checks=unheld)
