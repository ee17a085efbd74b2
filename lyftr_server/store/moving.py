"""What makes up a database, table by table, as every engine reads it and another takes it in."""

from collections.abc import Iterable
from hashlib import sha256
from typing import Any, NamedTuple

PIECE_ROWS = 1000

Row = tuple[Any, ...]


class Table(NamedTuple):
    """Rows go in the order of the first column, which is unique."""

    name: str
    columns: tuple[str, ...]
    first: int | bytes  # before every key

    @property
    def key(self) -> str:
        return self.columns[0]


TABLES = (
    Table(
        "messages",
        (
            "seq",
            "message_id",
            "from_msisdn",
            "to_msisdn",
            "ts",
            "text",
            "source",
            "payload",
            "created_at",
        ),
        -1,
    ),
    Table("events", ("seq", "hash", "source", "kind", "message_id", "body", "created_at"), -1),
    Table(
        "refused",
        ("id", "created_at", "source", "result", "request_id", "message_id", "detail", "body"),
        -1,
    ),
    Table("tombstones", ("hash", "until"), b""),
)


class Whole(NamedTuple):
    """What a database has beside the rows of its tables."""

    keys: dict[str, bytes]  # by their names
    counts: dict[str, int]  # by the tables' names
    last: dict[str, int]  # the last number that a table gave


class Digest:
    """The number of rows and a hash of all of them, in their order."""

    def __init__(self) -> None:
        self.rows = 0
        self._hash = sha256()

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.rows += 1
            self._hash.update(repr(tuple(row)).encode())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Digest) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        return f"{self.rows} rows, SHA-256 {self._hash.hexdigest()}"
