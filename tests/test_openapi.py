"""The OpenAPI document: valid, complete, and true of the running server."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openapi_spec_validator
import pytest
from jsonschema import Draft202012Validator
from openapi_schema_validator import oas31_format_checker

from lyftr_server import __version__, http1
from lyftr_server.handlers import EXACT, PATTERNS
from lyftr_server.handlers.docs import AssetHandler
from lyftr_server.handlers.inspector import FaviconHandler, InspectorFileHandler
from lyftr_server.openapi import document
from lyftr_server.openapi.deliveries import EXAMPLE_SECRET, example_body
from lyftr_server.schema import Invalid, parse_message, parse_query
from lyftr_server.sources import SOURCES
from lyftr_server.sources.native import Native

from .conftest import ServerFactory
from .process import Answer, RunningServer, message

DOCUMENT = document()


def problems(schema: dict[str, Any], value: Any) -> list[str]:
    """Return what a schema of the document says against a value."""
    whole = {**schema, "components": DOCUMENT["components"]}
    validator = Draft202012Validator(whole, format_checker=oas31_format_checker)
    return [error.message for error in validator.iter_errors(value)]


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """Return a part of the document, or the component that it refers to."""
    if "$ref" not in part:
        return part
    found: Any = DOCUMENT
    for key in part["$ref"].removeprefix("#/").split("/"):
        found = found[key]
    return dict(found)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_it_is_valid_openapi_3_1_as_served(server: RunningServer) -> None:
    answer = server.get("/openapi.json")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.json() == DOCUMENT
    openapi_spec_validator.validate(
        answer.json(), cls=openapi_spec_validator.OpenAPIV31SpecValidator
    )
    assert answer.json()["info"]["version"] == __version__
    # The second time it is the same, and HEAD gives its size.
    assert server.get("/openapi.json").body == answer.body
    head = server.request("HEAD", "/openapi.json")
    assert (head.body, int(head.headers["Content-Length"])) == (b"", len(answer.body))


# -- routes


def test_it_has_every_route_with_its_method_and_no_other() -> None:
    handlers = [*EXACT.values(), *(handler for _, handler in PATTERNS)]
    routes = {
        handler.route: {name.lower() for name in handler.methods if name != "HEAD"}
        for handler in handlers
        # Parts of pages are left out.
        if not issubclass(handler, (AssetHandler, FaviconHandler, InspectorFileHandler))
    }
    routes |= {kind.route: {"get", "post"} if kind.greeting else {"post"} for kind in SOURCES}
    assert {path: set(methods) for path, methods in DOCUMENT["paths"].items()} == routes


def test_a_pattern_matches_its_route() -> None:
    for pattern, handler in PATTERNS:
        assert re.fullmatch(pattern, re.sub(r"\{\w+\}", "m1", handler.route))


def test_operation_ids_differ() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)


def test_every_status_that_http_itself_gives_is_named() -> None:
    folder = Path(http1.__file__).parent
    source = "".join(path.read_text() for path in folder.glob("*.py"))
    given = set(re.findall(r"(?:refuse|_Faulty)\(([45]\d\d)\)", source))
    assert {"400", "431", "505"} <= given  # the source is read rightly
    otherwise = DOCUMENT["components"]["responses"]["Otherwise"]["description"]
    assert given - {"413", "503"} == set(re.findall(r"\b[45]\d\d\b", otherwise))
    for path, _, operation in operations():
        assert {"413", "default"} <= set(operation["responses"]), path


# -- examples


def media_types(part: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each thing in the document that has a schema: parameters, bodies, answers."""
    if isinstance(part, dict):
        if isinstance(part.get("schema"), dict):
            yield place, part
        for key, inner in part.items():
            yield from media_types(inner, f"{place}/{key}")
    elif isinstance(part, list):
        for number, inner in enumerate(part):
            yield from media_types(inner, f"{place}/{number}")


def test_every_example_is_accepted_by_its_schema() -> None:
    seen = 0
    for place, part in media_types(DOCUMENT):
        examples = [*part["schema"].get("examples", [])]
        if "example" in part:
            examples.append(part["example"])
        for example in examples:
            assert problems(part["schema"], example) == [], place
            seen += 1
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for example in schema.get("examples", []):
            assert problems(schema, example) == [], name
            seen += 1
    assert seen > 20


def test_every_answer_in_json_has_an_example() -> None:
    for place, part in media_types(DOCUMENT):
        if place.endswith("application/json") and "/openapi.json/" not in place:
            assert "example" in part, place


def test_the_example_is_stored_as_it_stands_when_the_key_is_the_example_s(
    server_factory: ServerFactory,
) -> None:
    server = server_factory(secret=EXAMPLE_SECRET)
    signature, *others = DOCUMENT["paths"]["/webhook"]["post"]["parameters"]
    assert not any("example" in other for other in others)
    assert server.deliver(example_body(Native), signature["example"]).status == 200
    assert server.get("/messages").json()["total"] == 1


# -- the schemas and the validators agree

NO_FIELD = "absent"


@pytest.mark.parametrize(
    "field, value",
    [
        pytest.param("message_id", "", id="empty id"),
        pytest.param("message_id", "x", id="shortest id"),
        pytest.param("message_id", "\U0001f600" * 256, id="longest id, outside the BMP"),
        pytest.param("message_id", "x" * 257, id="id too long"),
        pytest.param("message_id", "line\nline\n", id="id with newlines"),
        pytest.param("message_id", "a\0b", id="id with NUL"),
        pytest.param("message_id", 1, id="id a number"),
        pytest.param("message_id", None, id="id null"),
        pytest.param("message_id", NO_FIELD, id="no id"),
        pytest.param("from", "+1", id="shortest number"),
        pytest.param("from", "+" + "9" * 32, id="longest number"),
        pytest.param("from", "+" + "9" * 33, id="number too long"),
        pytest.param("from", "+", id="no digits"),
        pytest.param("from", "919876543210", id="no plus"),
        pytest.param("from", "+91 98", id="space in a number"),
        pytest.param("from", " +91", id="space before a number"),
        pytest.param("from", "+९१", id="digits of another script"),
        pytest.param("from", 919876543210, id="number a number"),
        pytest.param("from", ["+1"], id="number a list"),
        pytest.param("from", NO_FIELD, id="no from"),
        pytest.param("to", "", id="empty to"),
        pytest.param("to", True, id="to a boolean"),
        pytest.param("to", NO_FIELD, id="no to"),
        pytest.param("ts", "2025-01-15T10:00:00Z", id="whole second"),
        pytest.param("ts", "2025-01-15T10:00:00.5Z", id="tenth of a second"),
        pytest.param("ts", "2025-01-15T10:00:00.123456789Z", id="nanosecond"),
        pytest.param("ts", "2025-01-15T10:00:00.1234567890Z", id="ten decimals"),
        pytest.param("ts", "2025-01-15T10:00:00.Z", id="no decimals after the point"),
        pytest.param("ts", "2024-02-29T00:00:00Z", id="leap day"),
        pytest.param("ts", "2025-02-29T00:00:00Z", id="no leap day"),
        pytest.param("ts", "2025-13-01T00:00:00Z", id="month 13"),
        pytest.param("ts", "2025-01-15T25:00:00Z", id="hour 25"),
        pytest.param("ts", "2025-01-15T10:00:00+00:00", id="offset"),
        pytest.param("ts", "2025-01-15t10:00:00z", id="lower case"),
        pytest.param("ts", "2025-1-5T1:2:3Z", id="unpadded"),
        pytest.param("ts", "2025-01-15", id="date only"),
        pytest.param("ts", 1736935200, id="seconds"),
        pytest.param("ts", NO_FIELD, id="no ts"),
        pytest.param("text", NO_FIELD, id="no text"),
        pytest.param("text", None, id="text null"),
        pytest.param("text", "", id="empty text"),
        pytest.param("text", "שלום \U0001f468‍\U0001f469 नमस्ते", id="several scripts"),
        pytest.param("text", "\U0001f600" * 4096, id="longest text, outside the BMP"),
        pytest.param("text", "x" * 4097, id="text too long"),
        pytest.param("text", "a\0", id="text with NUL"),
        pytest.param("text", 5, id="text a number"),
        pytest.param("text", {}, id="text an object"),
        pytest.param("other", {"kept": False}, id="unknown member"),
    ],
)
def test_a_message_is_accepted_by_both_or_neither(field: str, value: Any) -> None:
    payload = message(**{field: value})
    if value is NO_FIELD:
        del payload[field]
    try:
        parse_message(json.dumps(payload).encode())
        refused = False
    except Invalid:
        refused = True
    assert bool(problems(DOCUMENT["components"]["schemas"]["Message"], payload)) == refused


@pytest.mark.parametrize("payload", [[], "text", 1, None, {}], ids=repr)
def test_what_is_no_message_is_refused_by_both(payload: Any) -> None:
    with pytest.raises(Invalid):
        parse_message(json.dumps(payload).encode())
    assert problems(DOCUMENT["components"]["schemas"]["Message"], payload)


@pytest.mark.parametrize(
    "name, value",
    [
        pytest.param("limit", "1", id="least limit"),
        pytest.param("limit", "100", id="most limit"),
        pytest.param("limit", "0", id="limit too small"),
        pytest.param("limit", "101", id="limit too large"),
        pytest.param("limit", "-1", id="limit negative"),
        pytest.param("limit", "ten", id="limit a word"),
        pytest.param("limit", "1.5", id="limit a fraction"),
        pytest.param("limit", "", id="limit empty"),
        pytest.param("offset", "0", id="least offset"),
        pytest.param("offset", str(2**63 - 1), id="most offset"),
        pytest.param("offset", str(2**63), id="offset too large"),
        pytest.param("offset", "-1", id="offset negative"),
        pytest.param("from", "", id="from empty"),
        pytest.param("from", "+919876543210", id="from"),
        pytest.param("from", " 919876543210", id="from with a raw plus"),
        pytest.param("from", "919876543210", id="from without plus"),
        pytest.param("from", "+", id="from a plus"),
        pytest.param("from", "++1", id="from two pluses"),
        pytest.param("from", "1" * 33, id="from too long"),
        pytest.param("from", "alice", id="from a word"),
        pytest.param("from_msisdn", "+919876543210", id="from_msisdn"),
        pytest.param("from_msisdn", "", id="from_msisdn empty"),
        pytest.param("from_msisdn", "alice", id="from_msisdn a word"),
        pytest.param("since", "", id="since empty"),
        pytest.param("since", "2025-01-15T10:00:00Z", id="since"),
        pytest.param("since", "2025-01-15T10:00:00.5Z", id="since a fraction"),
        pytest.param("since", "2025-01-15", id="since a date"),
        pytest.param("since", "2025-02-30T10:00:00Z", id="since no date"),
        pytest.param("since", "2025-01-15T10:00:00+00:00", id="since with an offset"),
        pytest.param("until", "", id="until empty"),
        pytest.param("until", "2025-01-15T10:00:00Z", id="until"),
        pytest.param("until", "now", id="until no instant"),
        pytest.param("order", "asc", id="order asc"),
        pytest.param("order", "desc", id="order desc"),
        pytest.param("order", "stored", id="order stored"),
        pytest.param("order", "newest", id="order unknown"),
        pytest.param("order", "", id="order empty"),
        pytest.param("q", "", id="q empty"),
        pytest.param("q", "%_", id="q wildcards"),
        pytest.param("q", "\U0001f600" * 256, id="q longest"),
        pytest.param("q", "x" * 257, id="q too long"),
        pytest.param("q", "a\0", id="q with NUL"),
        pytest.param("cursor", "", id="cursor empty"),
        pytest.param("cursor", "anything", id="cursor"),  # the store knows whether it is one
    ],
)
def test_a_parameter_is_accepted_by_both_or_neither(name: str, value: str) -> None:
    parameters = DOCUMENT["paths"]["/messages"]["get"]["parameters"]
    (schema,) = [each["schema"] for each in parameters if each["name"] == name]
    try:
        parse_query({name: [value.encode()]})
        refused = False
    except Invalid:
        refused = True
    # An integer stands in a URL as its digits.
    number = schema.get("type") == "integer" and re.fullmatch("-?[0-9]+", value)
    assert bool(problems(schema, int(value) if number else value)) == refused


def test_a_query_without_parameters_has_the_defaults_that_it_names() -> None:
    parameters = DOCUMENT["paths"]["/messages"]["get"]["parameters"]
    defaults = {
        each["name"]: each["schema"]["default"]
        for each in parameters
        if "default" in each["schema"]
    }
    query = parse_query({})
    assert defaults == {"limit": query.limit, "offset": query.offset, "order": query.order}


def test_an_export_takes_the_filters_alone() -> None:
    parameters = DOCUMENT["paths"]["/messages.ndjson"]["get"]["parameters"]
    assert {each["name"] for each in parameters} == {
        "from",
        "from_msisdn",
        "since",
        "until",
        "q",
        "order",
    }


# -- what the server answers is what the document says

OURS = {"X-Request-ID", "X-Result", "Retry-After", "Link", "WWW-Authenticate"}


def check(path: str, method: str, answer: Answer) -> None:
    """Hold that an answer's status, headers, type and body are documented."""
    responses = DOCUMENT["paths"][path][method.lower()]["responses"]
    assert str(answer.status) in responses, answer
    described = resolved(responses[str(answer.status)])
    given = {name for name in OURS if name in answer.headers}
    assert given <= set(described["headers"])
    assert set(described["headers"]) - given <= {"Link"}  # only when there is another page
    for name in given:
        schema = resolved(described["headers"][name])["schema"]
        value = answer.headers[name]
        assert problems(schema, int(value) if schema.get("type") == "integer" else value) == []
    media_type = answer.headers["Content-Type"].partition(";")[0]
    schema = described["content"][media_type]["schema"]
    text = answer.body.decode()
    value = json.loads(text) if media_type == "application/json" else text
    assert problems(schema, value) == []


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with three messages, which asks readers for a token."""
    folder = tmp_path_factory.mktemp("filled")
    with RunningServer(folder, variables={"READ_TOKEN": "t", "MAX_BODY_BYTES": "2000"}) as server:
        for number in range(3):
            assert server.deliver(message(f"m{number}", text=None)).status == 200
        yield server


@pytest.mark.parametrize(
    "path, target, status",
    [
        pytest.param("/messages", "/messages", 200, id="listing"),
        pytest.param("/messages", "/messages?limit=1", 200, id="first page"),
        pytest.param("/messages", "/messages?limit=1&offset=1", 200, id="middle page"),
        pytest.param("/messages", "/messages?q=none", 200, id="empty page"),
        pytest.param("/messages", "/messages?limit=0&since=now", 422, id="bad query"),
        pytest.param("/messages", "/messages?cursor=x", 422, id="bad cursor"),
        pytest.param("/messages/{message_id}", "/messages/m1", 200, id="message"),
        pytest.param("/messages/{message_id}", "/messages/none", 404, id="no message"),
        pytest.param("/messages/{message_id}", "/messages/%ff", 400, id="path not UTF-8"),
        pytest.param("/messages.ndjson", "/messages.ndjson", 200, id="export"),
        pytest.param("/messages.ndjson", "/messages.ndjson?from=x", 422, id="bad export"),
        pytest.param("/messages/stream", "/messages/stream?until=x", 422, id="bad stream"),
        pytest.param("/stats", "/stats", 200, id="stats"),
        pytest.param("/stats/timeline", "/stats/timeline?by=day", 200, id="timeline"),
        pytest.param("/stats/timeline", "/stats/timeline?by=week", 422, id="bad timeline"),
        pytest.param("/inspector", "/inspector", 200, id="inspector"),
        pytest.param("/health", "/health", 200, id="health"),
        pytest.param("/health/live", "/health/live", 200, id="liveness"),
        pytest.param("/health/ready", "/health/ready", 200, id="readiness"),
        pytest.param("/metrics", "/metrics", 200, id="metrics"),
        pytest.param("/docs", "/docs", 200, id="page"),
        pytest.param("/openapi.json", "/openapi.json", 200, id="document"),
        pytest.param("/", "/", 200, id="root"),
    ],
)
def test_reads_answer_as_documented(
    filled: RunningServer, path: str, target: str, status: int
) -> None:
    answer = filled.get(target, Authorization="Bearer t")
    assert answer.status == status
    check(path, "get", answer)


@pytest.mark.parametrize(
    "path", ["/messages", "/messages.ndjson", "/messages/stream", "/stats", "/stats/timeline"]
)
def test_a_missing_token_is_answered_as_documented(filled: RunningServer, path: str) -> None:
    answer = filled.get(path)
    assert answer.status == 401
    check(path, "get", answer)
    assert {"readToken": []} in DOCUMENT["paths"][path]["get"]["security"]


def test_openmetrics_are_answered_as_documented(filled: RunningServer) -> None:
    answer = filled.get("/metrics", Accept="application/openmetrics-text")
    assert "openmetrics" in answer.headers["Content-Type"]
    check("/metrics", "get", answer)


@pytest.mark.parametrize(
    "body, signature, status",
    [
        pytest.param(b"{}", None, 422, id="no fields"),
        pytest.param(b'{"\xff', None, 422, id="not UTF-8"),
        pytest.param(b"{}", "bad", 401, id="bad signature"),
        pytest.param(b" " * 2001, None, 413, id="too large"),
    ],
)
def test_refused_deliveries_are_answered_as_documented(
    filled: RunningServer, body: bytes, signature: str | None, status: int
) -> None:
    answer = filled.deliver(body, signature)
    assert answer.status == status
    check("/webhook", "post", answer)


def test_deliveries_are_answered_as_documented(server: RunningServer) -> None:
    results = []
    for content in (message(), message(), message(text="other")):
        answer = server.deliver(content)
        check("/webhook", "post", answer)
        results.append(answer.headers["X-Result"])
    assert results == ["created", "duplicate", "conflict"]


def test_an_empty_store_has_stats_as_documented(server: RunningServer) -> None:
    check("/stats", "get", server.get("/stats"))


def test_another_method_is_refused_on_every_route(filled: RunningServer) -> None:
    # What is not there without its secret or token.
    absent = {kind.route for kind in SOURCES} - {"/webhook"} | {"/people/{number}"}
    for path, methods in DOCUMENT["paths"].items():
        if path in absent:
            continue
        method = "POST" if "get" in methods else "GET"
        answer = filled.request(method, path.replace("{message_id}", "m1"), b"")
        assert answer.status == 405, path
        assert problems({"$ref": "#/components/schemas/Error"}, answer.json()) == []
