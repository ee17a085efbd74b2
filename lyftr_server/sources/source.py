"""What a sender is to the server: a route, a proof, and what a signed body means."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from ..config import Config
from ..records import Delivery


class Received(NamedTuple):
    """A body as it came over the wire."""

    headers: Mapping[str, str]  # by get(), whatever the case
    body: bytes
    at: float  # our clock, seconds since 1970
    query: str = ""  # as the URL had it


class Field(NamedTuple):
    """A header or a parameter that a sender proves itself with, for the API page."""

    name: str
    description: str
    pattern: str
    example: str = ""


class Source(ABC):
    """One kind of sender, made of the configuration. Describes itself for the API page."""

    name: ClassVar[str]  # in logs, metrics and the database
    route: ClassVar[str]
    sender: ClassVar[str]  # in words
    about: ClassVar[str]  # Markdown
    operation: ClassVar[str]  # what the API page calls a delivery
    proof: ClassVar[tuple[Field, ...]]  # headers
    media_type: ClassVar[str] = "application/json"
    schema: ClassVar[str | None] = None  # of a body, where the API page has one
    example: ClassVar[Any] = None  # of a body
    variable: ClassVar[str]  # the one with what signs
    answer: ClassVar[bytes] = b'{"status": "ok"}'
    answer_type: ClassVar[str] = "application/json"
    greeting: ClassVar[tuple[Field, ...]] = ()  # parameters of a set-up call by GET, if any

    # The methods whose secrets are set; without any, the route does not exist.
    methods: tuple[str, ...] = ("POST",)

    @classmethod
    @abstractmethod
    def of(cls, config: Config) -> "Source | None":
        """Return this sender as the configuration has it; None without its secret."""

    @classmethod
    @abstractmethod
    def sign(cls, key: bytes, body: bytes, url: str, at: float) -> dict[str, str]:
        """Return the headers with which such a sender posts a body to `url`. For who tries it."""

    @abstractmethod
    def verify(self, received: Received) -> str | None:
        """Return which key signed the body (signature.KEY_NAMES), None when none did.

        Whatever is received, this raises nothing and takes time in proportion to its size.
        """

    @abstractmethod
    def parse(self, received: Received) -> Delivery:
        """Return what a verified body holds. Invalid when it is no such sender's at all."""

    def greet(self, arguments: Mapping[str, Sequence[bytes]]) -> bytes | None:
        """Return the text that answers a GET with these query arguments; None refuses it."""
        return None
