"""The routes that senders post to, as the table of sources has them."""

import json
from collections.abc import Sequence
from typing import Any

from ..sources import Source
from .answers import answer, answer_in, operation
from .schemas import Json, ref

EXAMPLE_SECRET = "testsecret"  # noqa: S105 - as in the README's walk; nobody's key

_DONE = """\
A 200 means that everything in the body is on disk. A repeat is answered 200 and changes nothing.
"""


def deliveries(table: Sequence[type[Source]]) -> Json:
    """Return the paths of deliveries."""
    routes: dict[str, list[type[Source]]] = {}
    for kind in table:
        routes.setdefault(kind.route, []).append(kind)
    return {route: _path(kinds) for route, kinds in routes.items()}


def example_body(kind: type[Source]) -> bytes:
    """Return the example as Swagger UI sends it, so that the example's signature fits."""
    return json.dumps(kind.example, indent=2).encode()


def _path(kinds: Sequence[type[Source]]) -> Json:
    first = kinds[0]
    path: Json = {"post": _post(kinds)}
    if first.greeting:
        path = {"get": _greeting(first), **path}
    return path


def _post(kinds: Sequence[type[Source]]) -> Json:
    first = kinds[0]
    schema = ref("schemas", first.schema) if first.schema else {"type": "object"}
    done: tuple[Json, Any] = (
        ({}, json.loads(first.answer))
        if _is_json(first)
        else (
            {"type": "string"},
            first.answer.decode(),
        )
    )
    return operation(
        "messages",
        first.operation,
        f"Deliveries in {first.sender}",
        {
            "200": answer_in("Stored, now or before.", {first.answer_type: done}, "X-Result"),
            "401": ref("responses", "InvalidSignature"),
            "404": ref("responses", "NoSuchRoute"),
            "422": ref("responses", "Invalid"),
            "503": ref("responses", "TryAgain"),
        },
        description="\n\n".join([_DONE, *(kind.about for kind in kinds)]),
        parameters=[each for kind in kinds for each in _proof(kind, kinds)],
        requestBody={
            "required": True,
            "content": {first.media_type: {"schema": schema, "example": first.example}},
        },
    )


def _proof(kind: type[Source], kinds: Sequence[type[Source]]) -> list[Json]:
    examples: dict[str, str] = {}
    if kind is kinds[0] and kind.media_type == "application/json":
        examples = kind.sign(EXAMPLE_SECRET.encode(), example_body(kind), kind.route, 0)
    return [
        {
            "name": header.name,
            "in": "header",
            "required": len(kinds) == 1,
            "description": header.description,
            "schema": {"type": "string", "pattern": header.pattern},
            **({"example": examples[header.name]} if header.name in examples else {}),
        }
        for header in kind.proof
    ]


def _greeting(kind: type[Source]) -> Json:
    return operation(
        "messages",
        kind.operation.replace("receive", "greet"),
        f"The set-up call of {kind.sender}",
        {
            "200": answer_in("The challenge.", {"text/plain": ({"type": "string"}, None)}),
            "403": answer("It does not fit.", ref("schemas", "Error"), {"detail": "refused"}),
            "404": ref("responses", "NoSuchRoute"),
        },
        parameters=[
            {
                "name": field.name,
                "in": "query",
                "required": True,
                "description": field.description,
                "schema": {"type": "string", "pattern": field.pattern},
                "example": field.example,
            }
            for field in kind.greeting
        ],
    )


def _is_json(kind: type[Source]) -> bool:
    return kind.answer_type == "application/json"
