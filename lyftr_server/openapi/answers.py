"""What is answered: headers, refusals, and what all operations have in common."""

from typing import Any

from .schemas import Json, object_of, ref

_OTHERWISE = (
    "What HTTP itself refuses, on any route: 400 malformed, 408 too slow, 417 an Expect that is "
    "not 100-continue, 431 headers too large, 501 a transfer coding other than chunked, 505 "
    "another version of HTTP."
)

HEADERS: Json = {
    "X-Request-ID": {"schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"}},
    "Retry-After": {"description": "In seconds.", "schema": {"type": "integer"}},
    "Link": {"description": "The next and previous page (RFC 8288).", "schema": {"type": "string"}},
    "X-Result": {
        "description": "What became of it; `conflict` is a repeat with other content.",
        "schema": {"enum": ["created", "duplicate", "conflict"]},
    },
    "Location": {"schema": {"type": "string"}},
    "WWW-Authenticate": {"schema": {"type": "string"}},
}


def answer(description: str, schema: Json, example: Any, *headers: str) -> Json:
    """Return an answer in JSON; without an example when that is None."""
    return answer_in(description, {"application/json": (schema, example)}, *headers)


def answer_in(description: str, media: dict[str, tuple[Json, Any]], *headers: str) -> Json:
    """Return an answer in any of some media types: type -> (schema, example)."""
    return {
        "description": description,
        "headers": {name: ref("headers", name) for name in ("X-Request-ID", *headers)},
        "content": {
            type_: {"schema": schema, **({} if example is None else {"example": example})}
            for type_, (schema, example) in media.items()
        },
    }


def refusals() -> Json:
    """Return the answers that several operations share."""
    error = ref("schemas", "Error")

    def refusal(description: str, detail: str, *headers: str) -> Json:
        return answer(description, error, {"detail": detail}, *headers)

    faults = {"detail": [{"loc": ["body", "ts"], "msg": "is required", "type": "missing"}]}
    return {
        "InvalidSignature": refusal("The signature does not fit the body.", "invalid signature"),
        "NoToken": refusal(
            "The server has a READ_TOKEN, and the request does not.",
            "a bearer token is required",
            "WWW-Authenticate",
        ),
        "OtherSite": refusal(
            "A page of another site made its reader's browser ask.",
            "pages of other sites may not read here",
        ),
        "OtherName": refusal(
            "The name in Host is not one of ALLOWED_HOSTS.", "this name is not in ALLOWED_HOSTS"
        ),
        "BadRequest": refusal("The path is not UTF-8.", "bad request"),
        "NoSuchMessage": refusal("No message has this id.", "no such message"),
        "NoSuchRoute": refusal("The secret of this sender is not set.", "not found"),
        "TooLarge": refusal("The body is larger than MAX_BODY_BYTES.", "request body too large"),
        "Invalid": answer(
            "The input breaks these rules. No value is repeated.",
            ref("schemas", "Faults"),
            faults,
        ),
        "InternalError": refusal("Our fault; the log has more.", "internal error"),
        "TryAgain": refusal(
            "Nothing is stored: the server is stopping, its queue is full, or the disk fails.",
            "try again later",
            "Retry-After",
        ),
        "NoStorage": refusal(
            "The database does not answer.", "storage is unavailable", "Retry-After"
        ),
        "Otherwise": refusal(_OTHERWISE, "bad request"),
    }


def operation(tag: str, name: str, summary: str, answers: dict[str, Json], **more: Any) -> Json:
    """Return an operation. `answers`: status -> answer, beside those that any route gives."""
    shared = {
        "413": ref("responses", "TooLarge"),
        "500": ref("responses", "InternalError"),
        "default": ref("responses", "Otherwise"),
    }
    responses = dict(sorted((answers | shared).items()))
    return {"tags": [tag], "operationId": name, "summary": summary, **more, "responses": responses}


def read(name: str, summary: str, answers: dict[str, Json], **more: Any) -> Json:
    """An operation that shows messages: behind READ_TOKEN, and in need of the database."""
    refusals = {
        "401": ref("responses", "NoToken"),
        "403": ref("responses", "OtherSite"),
        "421": ref("responses", "OtherName"),
        "503": ref("responses", "NoStorage"),
    }
    security: list[Json] = [{}, {"readToken": []}]
    return operation("messages", name, summary, answers | refusals, security=security, **more)


def status(word: str) -> Json:
    """Return the schema of an answer that is one word."""
    return object_of({"status": {"const": word}})
