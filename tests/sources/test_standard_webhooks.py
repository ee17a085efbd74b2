"""Standard Webhooks 1.0.0, with the published package as the sender."""

from datetime import UTC, datetime, timedelta

import pytest

from lyftr_server.signature import sign_standard, standard_key
from lyftr_server.sources import Received
from lyftr_server.sources.standard_webhooks import StandardWebhooks

from .conftest import Post
from .senders import STANDARD, STANDARD_SECRET, standard

BODY = STANDARD.body("m1", "Hello")
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
NOW = datetime.now(UTC)
KEY = standard_key(STANDARD_SECRET)


def verify(headers: dict[str, str], body: bytes = BODY, *keys: bytes) -> str | None:
    source = StandardWebhooks(*(keys or (KEY,)))
    return source.verify(Received(headers, body, NOW.timestamp()))


@pytest.mark.parametrize(
    "seconds, key",
    [(0, "current"), (299, "current"), (-299, "current"), (301, None), (-301, None)],
)
def test_a_clock_may_be_off_by_300_seconds(seconds: int, key: str | None) -> None:
    assert verify(standard(BODY, NOW + timedelta(seconds=seconds))) == key


def test_one_of_two_signatures_is_enough_while_a_key_changes() -> None:
    ours, theirs = standard(BODY, NOW), standard(BODY, NOW, OTHER)
    both = f"{theirs['webhook-signature']} {ours['webhook-signature']}"
    assert verify(ours | {"webhook-signature": both}) == "current"
    assert verify(theirs) is None
    assert verify(theirs, BODY, KEY, standard_key(OTHER)) == "previous"


def test_we_sign_as_the_package_does() -> None:
    made = sign_standard(KEY, "msg_1", int(NOW.timestamp()), BODY)
    assert made == standard(BODY, NOW)["webhook-signature"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"webhook-id": ""}, id="no id"),
        pytest.param({"webhook-id": "msg_2"}, id="another id"),
        pytest.param({"webhook-timestamp": ""}, id="no time"),
        pytest.param({"webhook-timestamp": f"{int(NOW.timestamp()) + 1}"}, id="another time"),
        pytest.param({"webhook-timestamp": f"{NOW.timestamp()}"}, id="a fraction"),
        pytest.param({"webhook-timestamp": "1" * 5000}, id="a long time"),
        pytest.param({"webhook-timestamp": "१७३६९३५२००"}, id="digits of another script"),
        pytest.param({"webhook-signature": ""}, id="no signature"),
        pytest.param({"webhook-signature": "v1,"}, id="an empty one"),
        pytest.param({"webhook-signature": "v1,é"}, id="no ASCII"),
        pytest.param({"webhook-signature": "v1," + "A" * 43 + "="}, id="another digest"),
        pytest.param({"webhook-signature": "v1 " * 10_000}, id="a long list"),
        pytest.param({"webhook-id": "é\ud800"}, id="an id that is no latin-1"),
    ],
)
def test_anything_else_proves_nothing(change: dict[str, str]) -> None:
    assert verify(standard(BODY, NOW) | change) is None


def test_other_versions_are_passed_over() -> None:
    headers = standard(BODY, NOW)
    listed = f"v1a,AAAA v2,BBBB {headers['webhook-signature']}"
    assert verify(headers | {"webhook-signature": listed}) == "current"
    only = headers["webhook-signature"].replace("v1,", "v1a,")
    assert verify(headers | {"webhook-signature": only}) is None


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_é", "not base64!", "=="])
def test_what_is_no_secret_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match=r"base64|empty"):
        standard_key(secret)


def test_a_secret_comes_with_prefix_and_padding_or_without() -> None:
    text = STANDARD_SECRET.removeprefix("whsec_")
    assert len({standard_key(each) for each in (STANDARD_SECRET, text, text + "==")}) == 1


async def test_a_replay_inside_the_window_is_a_duplicate(post: Post) -> None:
    headers = standard(BODY)
    results = [(await post(STANDARD, BODY, headers)).headers["X-Result"] for _ in range(2)]
    assert results == ["created", "duplicate"]
