"""The application with every sender's secret, and each sender in turn."""

from dataclasses import replace
from pathlib import Path

import pytest

from lyftr_server.config import Config

from ..conftest import Client
from ..process import SECRET
from .senders import SENDERS, SETTINGS, Sender


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Config:
    settings = Config(secrets=(SECRET.encode(),), database=tmp_path / "app.db")
    return replace(settings, **(SETTINGS | getattr(request, "param", {})))


@pytest.fixture(params=SENDERS, ids=repr)
def sender(request: pytest.FixtureRequest) -> Sender:
    found: Sender = request.param
    return found


class Post:
    """Posts a body as a sender does, signed rightly unless told otherwise."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def __call__(self, sender: Sender, body: bytes, headers: dict[str, str] | None = None):  # type: ignore[no-untyped-def]
        headers = sender.sign(body) if headers is None else headers
        return await self.client.request("POST", sender.route, body, headers)


@pytest.fixture
def post(client: Client) -> Post:
    return Post(client)
