"""What a client may send: the success first, then one case for each refusal."""

import json
from typing import Any

import pytest

from lyftr_server.records import Message
from lyftr_server.schema import Invalid, MessageQuery, parse_message, parse_query

from .process import as_body, message


def refusal(body: Any) -> list[tuple[tuple[str | int, ...], str]]:
    """Return where and of what type the faults are."""
    with pytest.raises(Invalid) as caught:
        parse_message(as_body(body))
    return [(fault.loc, fault.type) for fault in caught.value.faults]


# -- messages


def test_a_message_is_taken_as_it_is() -> None:
    body = as_body(message("m1", text="नमस्ते 🙂"))
    assert parse_message(body) == Message(
        "m1", "+919876543210", "+14155550100", "2025-01-15T10:00:00Z", "नमस्ते 🙂"
    )


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"message_id": "x"}, id="id of one character"),
        pytest.param({"message_id": "é" * 256}, id="id of 256 characters"),
        pytest.param({"message_id": " \n"}, id="id of white space"),
        pytest.param({"from": "+1", "to": "+" + "9" * 32}, id="numbers of 1 and 32 digits"),
        pytest.param({"ts": "2024-02-29T23:59:59.1Z"}, id="leap day, one digit"),
        pytest.param({"ts": "0001-01-01T00:00:00.123456789Z"}, id="year 1, nine digits"),
        pytest.param({"ts": "9999-12-31T23:59:59Z"}, id="year 9999"),
        pytest.param({"text": ""}, id="empty text"),
        pytest.param({"text": None}, id="null text"),
        pytest.param({"text": "🙂" * 4096}, id="text of 4096 code points beyond the BMP"),
        pytest.param({"text": "\u2028\x01\x7f\ufeff\ufffe"}, id="odd characters in a text"),
    ],
)
def test_what_the_rules_allow_is_taken(fields: dict[str, Any]) -> None:
    expected = message() | fields
    assert parse_message(as_body(expected)) == Message(*expected.values())


def test_text_may_be_absent() -> None:
    content = message()
    del content["text"]
    assert parse_message(as_body(content)).text is None


def test_other_fields_are_ignored() -> None:
    content = message() | {"extra": [1, {"deep": None}], "ts_": 1.5, "n": 10**300}
    assert parse_message(as_body(content)) == parse_message(as_body(message()))


def test_white_space_around_the_object_is_json() -> None:
    assert parse_message(b" \r\n\t" + as_body(message()) + b"\n").message_id == "m1"


def test_escapes_are_decoded() -> None:
    body = as_body(message(text="?")).replace(b"?", rb"\ud83d\ude42\n")
    assert parse_message(body).text == "🙂\n"


@pytest.mark.parametrize("field", ["message_id", "from", "to", "ts"])
def test_a_missing_field_is_named(field: str) -> None:
    content = message()
    del content[field]
    assert refusal(content) == [(("body", field), "missing")]


@pytest.mark.parametrize("field", ["message_id", "from", "to", "ts", "text"])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(1, id="integer"),
        pytest.param(1.5, id="float"),
        pytest.param(True, id="boolean"),
        pytest.param(["+1"], id="array"),
        pytest.param({}, id="object"),
    ],
)
def test_a_field_that_is_no_string_is_refused(field: str, value: Any) -> None:
    assert refusal(message() | {field: value}) == [(("body", field), "string_type")]


@pytest.mark.parametrize("field", ["message_id", "from", "to", "ts"])
def test_only_text_may_be_null(field: str) -> None:
    assert refusal(message() | {field: None}) == [(("body", field), "string_type")]


@pytest.mark.parametrize(
    "value, type",
    [
        pytest.param("", "string_too_short", id="empty"),
        pytest.param("x" * 257, "string_too_long", id="257 characters"),
    ],
)
def test_a_message_id_has_1_to_256_characters(value: str, type: str) -> None:
    assert refusal(message(value)) == [(("body", "message_id"), type)]


@pytest.mark.parametrize("field", ["from", "to"])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="empty"),
        pytest.param("+", id="no digit"),
        pytest.param("919876543210", id="no plus"),
        pytest.param("+" + "1" * 33, id="33 digits"),
        pytest.param("+91\n", id="trailing newline"),
        pytest.param(" +91", id="leading space"),
        pytest.param("+91 98", id="inner space"),
        pytest.param("++91", id="two pluses"),
        pytest.param("+٩١", id="Arabic-Indic digits"),
        pytest.param("+९१", id="Devanagari digits"),
        pytest.param("+１", id="fullwidth digit"),
        pytest.param("+1a", id="letter"),
        pytest.param("+-1", id="sign"),
    ],
)
def test_a_number_is_a_plus_and_1_to_32_digits(field: str, value: str) -> None:
    assert refusal(message() | {field: value}) == [(("body", field), "string_pattern_mismatch")]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="empty"),
        pytest.param("2025-01-15T10:00:00", id="no Z"),
        pytest.param("2025-01-15T10:00:00z", id="lower-case z"),
        pytest.param("2025-01-15t10:00:00Z", id="lower-case t"),
        pytest.param("2025-01-15 10:00:00Z", id="space for T"),
        pytest.param("2025-01-15T10:00:00+00:00", id="offset of zero"),
        pytest.param("2025-01-15T10:00:00+05:30", id="offset"),
        pytest.param("2025-1-15T10:00:00Z", id="unpadded month"),
        pytest.param("2025-01-15T1:00:00Z", id="unpadded hour"),
        pytest.param("2025-01-15T10:00Z", id="no seconds"),
        pytest.param("2025-01-15", id="no time"),
        pytest.param("2025-01-15T10:00:00.Z", id="a point without digits"),
        pytest.param("2025-01-15T10:00:00,5Z", id="a comma"),
        pytest.param("2025-01-15T10:00:00.1234567890Z", id="ten digits"),
        pytest.param("2025-01-15T10:00:00Z\n", id="trailing newline"),
        pytest.param("12025-01-15T10:00:00Z", id="five digits of a year"),
        pytest.param("٢٠٢٥-01-15T10:00:00Z", id="digits of another script"),
        pytest.param("1736935200", id="seconds since 1970"),
    ],
)
def test_ts_has_one_form(value: str) -> None:
    assert refusal(message(ts=value)) == [(("body", "ts"), "string_pattern_mismatch")]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("2025-02-29T10:00:00Z", id="no leap year"),
        pytest.param("2025-13-01T10:00:00Z", id="month 13"),
        pytest.param("2025-00-01T10:00:00Z", id="month 0"),
        pytest.param("2025-04-31T10:00:00Z", id="31 April"),
        pytest.param("2025-01-15T24:00:00Z", id="hour 24"),
        pytest.param("2025-01-15T10:60:00Z", id="minute 60"),
        pytest.param("2025-01-15T10:00:60Z", id="second 60"),
        pytest.param("0000-01-01T00:00:00Z", id="year 0"),
    ],
)
def test_ts_exists(value: str) -> None:
    assert refusal(message(ts=value)) == [(("body", "ts"), "datetime_invalid")]


def test_a_text_has_at_most_4096_code_points() -> None:
    assert refusal(message(text="🙂" * 4097)) == [(("body", "text"), "string_too_long")]


def test_all_faults_come_at_once_and_in_order() -> None:
    assert refusal({"message_id": "", "to": "1", "text": 1}) == [
        (("body", "from"), "missing"),
        (("body", "message_id"), "string_too_short"),
        (("body", "text"), "string_type"),
        (("body", "to"), "string_pattern_mismatch"),
        (("body", "ts"), "missing"),
    ]


GOOD = json.dumps(message())[1:-1].encode()


@pytest.mark.parametrize(
    "body, type",
    [
        pytest.param(b"", "json_invalid", id="nothing"),
        pytest.param(b"{", "json_invalid", id="unfinished"),
        pytest.param(b"{%s,}" % GOOD, "json_invalid", id="trailing comma"),
        pytest.param(b"{%s}{}" % GOOD, "json_invalid", id="two values"),
        pytest.param(b"{%s} x" % GOOD, "json_invalid", id="something after it"),
        pytest.param(b"{'a': 1}", "json_invalid", id="single quotes"),
        pytest.param(b'{%s, "x": NaN}' % GOOD, "json_invalid", id="NaN"),
        pytest.param(b'{%s, "x": Infinity}' % GOOD, "json_invalid", id="Infinity"),
        pytest.param(b'{%s, "x": [-Infinity]}' % GOOD, "json_invalid", id="-Infinity inside"),
        pytest.param(b'{%s, "x": 01}' % GOOD, "json_invalid", id="leading zero"),
        pytest.param(b'{%s, "x": "\n"}' % GOOD, "json_invalid", id="raw newline in a string"),
        pytest.param(b'{%s, "x": %s}' % (GOOD, b"9" * 5000), "json_invalid", id="5000 digits"),
        pytest.param(b"[" * 100_000, "json_invalid", id="100,000 brackets"),
        pytest.param(b'{"a":' * 100_000, "json_invalid", id="100,000 braces"),
        pytest.param(b'{%s, "ts": "x"}' % GOOD, "duplicate_key", id="a key twice"),
        pytest.param(b'{%s, "x": {"a":1,"a":1}}' % GOOD, "duplicate_key", id="twice inside"),
        pytest.param(b'{%s, "t\\u0073": "x"}' % GOOD, "duplicate_key", id="twice by an escape"),
        pytest.param(b"null", "object_type", id="null"),
        pytest.param(b"[]", "object_type", id="an array"),
        pytest.param(b'"x"', "object_type", id="a string"),
        pytest.param(b"1", "object_type", id="a number"),
        pytest.param(b"{%s\xff}" % GOOD, "unicode_error", id="invalid UTF-8"),
        pytest.param(b'{"x":"\xed\xa0\x80",%s}' % GOOD, "unicode_error", id="encoded surrogate"),
        pytest.param(b'{"x":"\xc0\x80",%s}' % GOOD, "unicode_error", id="overlong NUL"),
        pytest.param(b"\xef\xbb\xbf{%s}" % GOOD, "json_invalid", id="a BOM"),
        pytest.param((b"{%s}" % GOOD).decode().encode("utf-16"), "unicode_error", id="UTF-16"),
        pytest.param(
            (b"{%s}" % GOOD).decode().encode("utf-16-le"), "json_invalid", id="UTF-16, no BOM"
        ),
        pytest.param(b"{%s\0}" % GOOD, "json_invalid", id="a raw NUL"),
    ],
)
def test_what_is_no_message_at_all_is_refused(body: bytes, type: str) -> None:
    assert refusal(body) == [(("body",), type)]


@pytest.mark.parametrize("escape", [rb"\u0000", rb"a\u0000b"], ids=["alone", "inside"])
@pytest.mark.parametrize("field", ["message_id", "from", "to", "ts", "text"])
def test_u0000_is_refused_in_any_field(field: str, escape: bytes) -> None:
    body = as_body(message() | {field: "?"}).replace(b"?", escape)
    assert refusal(body) == [(("body", field), "string_unicode")]


@pytest.mark.parametrize(
    "escape", [rb"\ud83d", rb"\ude42", rb"\ude42\ud83d"], ids=["high", "low", "reversed"]
)
@pytest.mark.parametrize("field", ["message_id", "text"])
def test_lone_surrogates_are_refused(field: str, escape: bytes) -> None:
    body = as_body(message() | {field: "?"}).replace(b"?", escape)
    assert refusal(body) == [(("body", field), "string_unicode")]


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(rb'"x": "\u0000"', id="a value"),
        pytest.param(rb'"x\ud800": 1', id="a key"),
        pytest.param(rb'"x": [[{"y": "\ud800"}]]', id="deep inside"),
        pytest.param(rb'"x": {"y\u0000": 1}', id="a key inside"),
    ],
)
def test_unstorable_characters_are_refused_in_ignored_fields_too(extra: bytes) -> None:
    assert refusal(b"{%s, %s}" % (GOOD, extra)) == [(("body",), "string_unicode")]


def test_faults_never_echo_a_value() -> None:
    content = dict.fromkeys(message(), "needle") | {"message_id": "needle" * 50, "needle": 1}
    bodies = [
        as_body(content),
        as_body(message(text="needle" * 1000)),
        b'{"needle": "\\ud800"}',
        b'{"needle": 1, "needle": 2}',
        b"needle",
        b'{"needle": NaN}',
        b'"needle"',
        b"\xffneedle",
    ]
    for body in bodies:
        with pytest.raises(Invalid) as caught:
            parse_message(body)
        assert "needle" not in str(caught.value)
        assert all("needle" not in str(fault.as_json()) for fault in caught.value.faults)


def test_a_fault_as_json_has_three_keys() -> None:
    with pytest.raises(Invalid) as caught:
        parse_message(b"{}")
    assert caught.value.faults[0].as_json() == {
        "loc": ["body", "from"],
        "msg": "is required",
        "type": "missing",
    }


# -- queries


def query(**arguments: str | bytes) -> MessageQuery:
    """Parse a query as it comes out of a URL; `from_` stands for `from`."""
    return parse_query(
        {
            name.removesuffix("_"): [value if isinstance(value, bytes) else value.encode()]
            for name, value in arguments.items()
        }
    )


def query_refusal(**arguments: str | bytes) -> list[tuple[tuple[str | int, ...], str]]:
    with pytest.raises(Invalid) as caught:
        query(**arguments)
    return [(fault.loc, fault.type) for fault in caught.value.faults]


def test_an_empty_query_has_the_defaults() -> None:
    assert query() == MessageQuery(50, 0, None, None, None, None)


def test_every_parameter_is_taken() -> None:
    found = query(limit="1", offset="2", from_="+91", since="2025-01-15T10:00:00.5Z", q="a%_")
    assert found == MessageQuery(1, 2, "+91", "2025-01-15T10:00:00.5Z", "a%_", None)
    assert query(cursor="x.y").cursor == "x.y"
    assert query_refusal(unknown="1") == [(("query", "unknown"), "extra_forbidden")]
    assert query_refusal(**{"+4915112345678": "1"}) == [(("query", "?"), "extra_forbidden")]


@pytest.mark.parametrize(
    "value", ["", "0", "101", "-1", "+5", "1.0", "5 ", "1_0", "５", "x", "1e1"]
)
def test_a_limit_is_1_to_100(value: str) -> None:
    assert query_refusal(limit=value) == [(("query", "limit"), "int_range")]


def test_the_bounds_of_limit_and_offset_are_taken() -> None:
    assert query(limit="100", offset=str(2**63 - 1)) == MessageQuery(100, 2**63 - 1)
    assert query(limit="007").limit == 7


@pytest.mark.parametrize("value", ["", "-1", str(2**63), "9" * 30, "x", "٣"])
def test_an_offset_is_0_to_the_largest_of_64_bits(value: str) -> None:
    assert query_refusal(offset=value) == [(("query", "offset"), "int_range")]


@pytest.mark.parametrize("name", ["from_", "from_msisdn"])
@pytest.mark.parametrize("value", ["+9198", " 9198", "9198"], ids=["encoded", "raw", "without"])
def test_a_sender_may_come_with_any_plus(name: str, value: str) -> None:
    assert query(**{name: value}).sender == "+9198"


@pytest.mark.parametrize("value", ["x", "++1", "  1", " +1", "+", " ", "1" * 33, "+9198\n", "٩"])
def test_a_sender_is_a_number(value: str) -> None:
    assert query_refusal(from_=value) == [(("query", "from"), "string_pattern_mismatch")]


def test_the_alias_of_from_must_agree_with_it() -> None:
    assert query(from_="+91", from_msisdn="91").sender == "+91"
    assert query(from_="", from_msisdn="91").sender == "+91"
    assert query_refusal(from_="+91", from_msisdn="+92") == [
        (("query", "from_msisdn"), "value_error")
    ]


@pytest.mark.parametrize(
    "value, instant",
    [
        ("2025-01-15", "2025-01-15T00:00:00Z"),
        ("2025-01-15T10:00:00.25Z", "2025-01-15T10:00:00.25Z"),
        ("2025-01-15T10:00:00+00:00", "2025-01-15T10:00:00Z"),
        ("2025-01-15T10:00:00+05:30", "2025-01-15T04:30:00Z"),
        ("2025-01-15T10:00:00 05:30", "2025-01-15T04:30:00Z"),
        ("2025-01-15T10:00:00.123456789-14:00", "2025-01-16T00:00:00.123456789Z"),
    ],
)
def test_since_is_an_instant_a_date_or_has_an_offset(value: str, instant: str) -> None:
    assert query(since=value).since == instant


@pytest.mark.parametrize(
    "value, type",
    [
        ("now", "string_pattern_mismatch"),
        ("2025-1-15", "string_pattern_mismatch"),
        ("20250115", "string_pattern_mismatch"),
        ("2025-01-15\n", "string_pattern_mismatch"),
        ("2025-01-15T10:00:00+0000", "string_pattern_mismatch"),
        ("2025-01-15T10:00+00:00", "string_pattern_mismatch"),
        ("2025-01-15T10:00:00+24:00", "datetime_invalid"),
        ("2025-01-15T10:00:00+00:60", "datetime_invalid"),
        ("0001-01-01T00:00:00+00:01", "datetime_invalid"),
        ("9999-12-31T23:59:59-00:01", "datetime_invalid"),
        ("2025-02-29", "datetime_invalid"),
    ],
)
def test_a_since_that_is_no_instant_is_refused(value: str, type: str) -> None:
    assert query_refusal(since=value) == [(("query", "since"), type)]


def test_since_exists() -> None:
    assert query_refusal(since="2025-02-30T10:00:00Z") == [(("query", "since"), "datetime_invalid")]


@pytest.mark.parametrize(
    "value, type",
    [
        pytest.param("x" * 257, "string_too_long", id="257 characters"),
        pytest.param("a\0b", "string_unicode", id="U+0000"),
        pytest.param(b"\xff", "unicode_error", id="invalid UTF-8"),
        pytest.param(b"\xed\xa0\x80", "unicode_error", id="encoded surrogate"),
    ],
)
def test_q_is_1_to_256_characters(value: str | bytes, type: str) -> None:
    assert query(q="é" * 256).q == "é" * 256
    assert query_refusal(q=value) == [(("query", "q"), type)]


def test_empty_filters_are_as_if_absent() -> None:
    assert query(from_="", from_msisdn="", since="", q="", cursor="") == query()


def test_a_parameter_must_not_come_twice() -> None:
    with pytest.raises(Invalid) as caught:
        parse_query({"limit": [b"1", b"2"]})
    assert caught.value.faults[0].type == "duplicate_key"


def test_a_cursor_does_not_go_with_an_offset() -> None:
    assert query_refusal(cursor="x", offset="1") == [(("query", "cursor"), "value_error")]
    assert query(cursor="x", offset="0").cursor == "x"


def test_query_faults_never_echo_a_value() -> None:
    names = ("limit", "offset", "from_", "since")
    with pytest.raises(Invalid) as caught:
        query(**dict.fromkeys(names, "needle"), q="needle" * 50)
    assert len(caught.value.faults) == 5
    assert "needle" not in str([fault.as_json() for fault in caught.value.faults])
