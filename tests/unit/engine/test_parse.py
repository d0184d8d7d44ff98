"""What is refused, under which code, at which field, and whether the asker can be told."""

from collections.abc import Callable
from contextlib import suppress
from time import process_time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.engine.parse import Envelope, decode, read_attributes, readable_id
from cortex_stream.engine.reading import _asker
from cortex_stream.engine.validate import validate
from cortex_stream.errors import Refused
from cortex_stream.record import Headers
from cortex_stream.routing.request import Request
from schemas.requests import ClassifyData
from tests.slowness import slowness
from tests.unit.engine.desk import LIMITS, request, source
from tests.unit.engine.hostile import HOSTILE, MEBIBYTE

GOOD = b'{"id":"1","type":"cortex.nlp.embed.v1","data":{"texts":["hello"]}}'


def read(value: bytes | None, headers: Headers = ()) -> Request:
    envelope = decode(value, source(headers=headers), limits=LIMITS)
    return validated(envelope)


def validated(envelope: Envelope) -> Request:
    return validate(read_attributes(envelope), envelope.data, limits=LIMITS)


def refusal(value: bytes | None, headers: Headers = ()) -> tuple[str, str | None, str | None]:
    """Return code, field and the id that can be read, as a caller gets them."""
    envelope: Envelope | None = None
    place = source(headers=headers)
    try:
        envelope = decode(value, place, limits=LIMITS)
        request = validated(envelope)
    except Refused as refused:
        return refused.code, refused.field, _asker(value, place, envelope).request_id
    pytest.fail(f"accepted: {request.attributes}")


def nested(levels: int) -> bytes:
    return b'{"id":"1","data":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def event(**changes: object) -> bytes:
    whole = {"id": "1", "type": "cortex.nlp.embed.v1", "data": {"texts": ["hello"]}, **changes}
    return orjson.dumps({name: given for name, given in whole.items() if given is not ...})


def data(**changes: object) -> bytes:
    return event(data={"texts": ["hello"], **changes})


def classify(**changes: object) -> bytes:
    return request(type="cortex.nlp.classify.v1", data=changes)


def ended_with(tail: bytes) -> bytes:
    return b'{"id":"1","type":"cortex.nlp.embed.v1",' + tail


NOT_JSON: dict[str, tuple[bytes | None, str, str | None]] = {
    "null value": (None, "empty_record", None),
    "empty value": (b"", "empty_record", None),
    "white space": (b"  \n", "invalid_json", None),
    "plain text": (b"hello", "invalid_json", None),
    "binary junk": (bytes(range(256)), "invalid_json", None),
    "gzip": (b"\x1f\x8b\x08\x00\x00\x00", "invalid_json", None),
    "cut off": (GOOD[:-1], "invalid_json", "1"),
    "two objects": (GOOD + GOOD, "invalid_json", None),
    "trailing comma": (b'{"id":"1",}', "invalid_json", "1"),
    "single quotes": (b"{'id':'1'}", "invalid_json", None),
    "array": (b"[" + GOOD + b"]", "invalid_json", None),
    "number": (b"1", "invalid_json", None),
    "text": (b'"x"', "invalid_json", None),
    "true": (b"true", "invalid_json", None),
    "null": (b"null", "invalid_json", None),
    "NaN": (ended_with(b'"data":NaN}'), "invalid_json", "1"),
    "-Infinity": (ended_with(b'"data":-Infinity}'), "invalid_json", "1"),
    "1e400": (ended_with(b'"data":1e400}'), "invalid_json", "1"),
    "5,000 digits": (ended_with(b'"data":' + b"1" * 5000 + b"}"), "invalid_json", "1"),
    "lone surrogate": (ended_with(b'"data":"\\ud800"}'), "invalid_json", "1"),
    "lone surrogate id": (b'{"id":"\\ud800"}', "invalid_json", None),
    "invalid UTF-8": (ended_with(b'"data":"\xff\xfe"}'), "invalid_json", "1"),
    "invalid UTF-8 id": (b'{"id":"\xc3(","data":\xff}', "invalid_json", "\ufffd("),
    "BOM": (b"\xef\xbb\xbf" + GOOD, "invalid_json", None),
    "UTF-16": (GOOD.decode().encode("utf-16"), "invalid_json", None),
    "too large": (GOOD + b" " * MEBIBYTE, "record_too_large", "1"),
    "too large, id last": (b" " * MEBIBYTE + GOOD, "record_too_large", None),
    "33 levels": (nested(33), "too_deep", "1"),
    "33 levels of objects": (b'{"id":"1","a":' + b'{"a":' * 32 + b"0" + b"}" * 33, "too_deep", "1"),
    "33 levels, mixed": (
        b'{"id":"1","a":' + b'[{"a":' * 16 + b"0" + b"}]" * 16 + b"}",
        "too_deep",
        "1",
    ),
    "33 levels beside brackets in text": (
        b'{"id":"1","t":"]]]]\\"}}","a":' + b"[" * 32 + b"]" * 32 + b"}",
        "too_deep",
        "1",
    ),
    "33 levels between backslashes": (
        b'{"id":"1","t":"\\\\","a":' + b"[" * 32 + b"]" * 32 + b',"u":"\\\\"}',
        "too_deep",
        "1",
    ),
    "2,000 levels": (nested(2000), "too_deep", "1"),
    "100,000 levels": (nested(100_000), "too_deep", "1"),
}


@pytest.mark.parametrize(("value", "code", "readable"), NOT_JSON.values(), ids=NOT_JSON)
def test_a_value_that_is_no_json_object_is_refused_and_a_leading_id_is_still_read(
    value: bytes | None, code: str, readable: str | None
) -> None:
    assert refusal(value) == (code, None, readable)


WRONG_ENVELOPE: dict[str, tuple[bytes, str | None, str | None]] = {
    "no id": (event(id=...), "id", None),
    "id is a number": (event(id=5), "id", None),
    "id is empty": (event(id=""), "id", None),
    "id is null": (event(id=None), "id", None),
    "id with a line break": (event(id="a\nb"), "id", None),
    "id of 257 characters": (event(id="x" * 257), "id", None),
    "no type": (event(type=...), "type", "1"),
    "type is a list": (event(type=["a"]), "type", "1"),
    "no data": (event(data=...), "data", "1"),
    "data is null": (event(data=None), "data", "1"),
    "specversion 0.3": (event(specversion="0.3"), "specversion", "1"),
    "source is empty": (event(source=""), "source", "1"),
    "subject is a number": (event(subject=1), "subject", "1"),
    "unknown priority": (event(priority="urgent"), "priority", "1"),
    "priority is a number": (event(priority=1), "priority", "1"),
    "priority in capitals": (event(priority="HIGH"), "priority", "1"),
    "time without offset": (event(time="2026-01-31T12:00:00"), "time", "1"),
    "time is a number": (event(time=1), "time", "1"),
    "a misspelt deadline": (event(deadlineMs=5), "deadlineMs", "1"),
    "another one": (event(deadline_ms=5), "deadline_ms", "1"),
    "deadlinems is negative": (event(deadlinems=-1), "deadlinems", "1"),
    "deadlinems is a text": (event(deadlinems="5"), "deadlinems", "1"),
    "deadlinems is a float": (event(deadlinems=5.5), "deadlinems", "1"),
    "deadlinems is true": (event(deadlinems=True), "deadlinems", "1"),
    "deadlinems past 2^53": (event(deadlinems=2**53 + 1), "deadlinems", "1"),
    "deadlinems of 2^64": (
        GOOD[:-1] + b',"deadlinems":18446744073709551616}',
        "deadlinems",
        "1",
    ),
    "deadlinems of 300 digits": (
        GOOD[:-1] + b',"deadlinems":' + b"1" * 300 + b"}",
        "deadlinems",
        "1",
    ),
    "data is XML": (event(datacontenttype="text/xml"), "datacontenttype", "1"),
    "tenant is empty": (event(tenant=""), "tenant", "1"),
}


@pytest.mark.parametrize(
    ("value", "field", "readable"), WRONG_ENVELOPE.values(), ids=WRONG_ENVELOPE
)
def test_a_wrong_attribute_is_named(value: bytes, field: str, readable: str | None) -> None:
    assert refusal(value) == ("invalid_envelope", field, readable)


WRONG_DATA: dict[str, tuple[bytes, str, str]] = {
    "no texts": (event(data={}), "invalid_field", "data.texts"),
    "data is a list": (event(data=["hello"]), "invalid_field", "data"),
    "data is a text": (event(data="hello"), "invalid_field", "data"),
    "no texts in the list": (data(texts=[]), "invalid_field", "data.texts"),
    "texts is a text": (data(texts="hello"), "invalid_field", "data.texts"),
    "an empty text": (data(texts=["a", ""]), "invalid_field", "data.texts[1]"),
    "a number among texts": (data(texts=["a", "b", 3]), "invalid_field", "data.texts[2]"),
    "null among texts": (data(texts=[None]), "invalid_field", "data.texts[0]"),
    "a NUL": (data(texts=["a", "b\x00c"]), "invalid_field", "data.texts[1]"),
    "a misspelt field": (data(modle="minilm"), "invalid_field", "data.modle"),
    "a field of another type": (data(labels=["a"]), "invalid_field", "data.labels"),
    "an endless field name": (data(**{"x" * 9999: 1}), "invalid_field", "data." + "x" * 64),
    "an unknown encoding": (
        data(encoding_format="hex"),
        "invalid_field",
        "data.encoding_format",
    ),
    "a path as model": (data(model="../minilm"), "invalid_field", "data.model"),
    "an unknown input type": (data(input_type="title"), "invalid_field", "data.input_type"),
    "257 texts": (data(texts=["a"] * 257), "limit_exceeded", "data.texts"),
    "10,000 texts": (data(texts=["a"] * 10_000), "limit_exceeded", "data.texts"),
    "32 KiB and a byte": (
        data(texts=["a", "b" * 32_769]),
        "limit_exceeded",
        "data.texts[1]",
    ),
    "32 KiB and a byte of Chinese": (
        data(texts=["中" * 10_922 + "abc"]),
        "limit_exceeded",
        "data.texts[0]",
    ),
    "no labels in the list": (classify(labels=[]), "invalid_field", "data.labels"),
    "an empty label": (classify(labels=["a", ""]), "invalid_field", "data.labels[1]"),
    "65 labels": (
        classify(labels=[str(n) for n in range(65)]),
        "limit_exceeded",
        "data.labels",
    ),
    "a label of 32 KiB and a byte": (
        classify(labels=["x" * 32_769]),
        "limit_exceeded",
        "data.labels[0]",
    ),
    "a repeated label": (classify(labels=["a", "b", "a"]), "invalid_field", "data.labels[2]"),
    "labels that only sanitising makes equal": (
        classify(labels=["e\u0301", "\u00e9"]),
        "invalid_field",
        "data.labels[1]",
    ),
    "a NUL in a label": (classify(labels=["a\x00"]), "invalid_field", "data.labels[0]"),
    "multi_label is a text": (classify(multi_label="yes"), "invalid_field", "data.multi_label"),
    "an unknown type": (event(type="cortex.nlp.sing.v1"), "unknown_type", "type"),
}


@pytest.mark.parametrize(("value", "code", "field"), WRONG_DATA.values(), ids=WRONG_DATA)
def test_a_wrong_field_is_named_by_its_path(value: bytes, code: str, field: str) -> None:
    assert refusal(value) == (code, field, "1")


@pytest.mark.parametrize("key", ["id", "type", "data"])
@pytest.mark.parametrize("spelling", ["plain", "escaped"])
def test_a_key_that_stands_twice_is_refused(key: str, spelling: str) -> None:
    written = key if spelling == "plain" else f"\\u{ord(key[0]):04x}{key[1:]}"
    value = GOOD[:-1] + f',"{written}":"2"}}'.encode()

    doubtful = (key, spelling) == ("id", "plain")
    assert refusal(value) == ("duplicate_key", key, None if doubtful else "1")


@pytest.mark.parametrize(
    "value",
    [
        request(['say "id" and "id" and "type"']),
        request(["\\u0069d"]),
        GOOD[:-1] + b',"ext":{"id":"1","id":"2"},"\\u0061":[{"data":1,"data":2}]}',
        request(type="cortex.nlp.classify.v1", data={"labels": ["id", "type", "data"]}),
        GOOD[:-1] + b',"other":1,"other":2}',
    ],
    ids=["in a text", "escaped in a text", "nested", "as values", "another key"],
)
def test_only_the_three_keys_of_the_outermost_object_must_be_unique(value: bytes) -> None:
    assert read(value).attributes.id == "1"


@pytest.mark.parametrize(
    "value",
    [
        b'{"id":"1","type":"cortex.nlp.embed.v1","data":{"texts":["a"]},"x":'
        + b"[" * 31
        + b"]" * 31
        + b"}",
        request(["[" * 100 + "{" * 100]),
        request(['\\"[' * 50, "\\" * 33 + "[" * 33]),
        GOOD[:-1] + b',"x":[' + b"[]," * 99 + b"{}]}",
        request(["a"] * 256),
        request(["a" * 32_768, "中" * 10_922]),
        b" \n\t" + GOOD + b"\r\n ",
    ],
    ids=["32 levels", "brackets", "quotes", "wide", "256 texts", "32 KiB", "white space"],
)
def test_what_is_just_within_the_limits_is_accepted(value: bytes) -> None:
    assert read(value).attributes.id == "1"


def in_levels(levels: int) -> bytes:
    return GOOD[:-1] + b',"x":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


EXACT: dict[str, tuple[Callable[[int], bytes], int, str]] = {
    "1 MiB": (lambda size: GOOD + b" " * (size - len(GOOD)), MEBIBYTE, "record_too_large"),
    "256 texts": (lambda n: request(["a"] * n), 256, "limit_exceeded"),
    "32 KiB a text": (lambda size: request(["a" * size]), 32_768, "limit_exceeded"),
    "32 KiB a label": (lambda size: classify(labels=["a" * size]), 32_768, "limit_exceeded"),
    "64 labels": (lambda n: classify(labels=[str(i) for i in range(n)]), 64, "limit_exceeded"),
    "depth 32": (in_levels, 32, "too_deep"),
    "2^53": (lambda number: event(deadlinems=number), 2**53, "invalid_envelope"),
}


@pytest.mark.parametrize(("build", "limit", "code"), EXACT.values(), ids=EXACT)
def test_a_limit_is_accepted_and_one_more_is_refused(
    build: Callable[[int], bytes], limit: int, code: str
) -> None:
    assert read(build(limit)).attributes.id == "1"
    assert refusal(build(limit + 1))[0] == code


def test_missing_attributes_have_their_defaults_and_unknown_extensions_are_ignored() -> None:
    extended = read(event(partitionkey="p", comexampleextension=1, traceparent="00-a-b-01"))

    assert extended.attributes.source == "//unknown"
    assert extended.attributes.specversion == "1.0"
    assert extended.attributes.tenant is None
    assert extended.attributes.traceparent == "00-a-b-01"
    assert not hasattr(extended.attributes, "comexampleextension")


# ---- binary mode ---------------------------------------------------------------------------------

CE_TYPE = ("ce_type", b"cortex.nlp.embed.v1")


def test_attributes_may_come_in_headers() -> None:
    headers = [
        ("ce_id", b"9"),
        CE_TYPE,
        ("ce_source", "//café".encode()),
        ("ce_priority", b"low"),
        ("ce_deadlinems", b"1500"),
        ("ce_time", b"2026-01-31T12:00:00Z"),
        ("ce_comexample", b"x"),
        ("ce_null", None),
        ("other", b"\xff"),
    ]

    asked = read(b'{"texts":["hello"]}', headers)

    assert (asked.attributes.id, asked.attributes.source) == ("9", "//café")
    assert (asked.attributes.priority, asked.attributes.deadlinems) == ("low", 1500)
    assert asked.data.texts == ["hello"]


@pytest.mark.parametrize(
    ("value", "headers", "code", "field", "readable"),
    [
        (b'{"texts":["a"]}', [("ce_id", b"\xff"), CE_TYPE], "invalid_envelope", "id", None),
        (b'{"texts":["a"]}', [("ce_id", b"9"), ("ce_type", b"\xff")], "invalid_envelope", "type", "9"),
        (b'{"texts":["a"]}', [("ce_id", b"\xff"), ("ce_type", b"\xff")], "invalid_envelope", "id", None),
        (b'{"texts":["a"]}', [("ce_id", b"9"), CE_TYPE, ("ce_deadlinems", b"soon")], "invalid_envelope", "deadlinems", "9"),
        (b'{"texts":["a"]}', [("ce_id", b"9"), CE_TYPE, ("ce_deadlinems", b"9" * 5000)], "invalid_envelope", "deadlinems", "9"),
        (b'{"texts":["a"]}', [("ce_id", b"9"), CE_TYPE, ("ce_deadlinems", "٣".encode())], "invalid_envelope", "deadlinems", "9"),
        (b"null", [("ce_id", b"9"), CE_TYPE], "invalid_envelope", "data", "9"),
        (b"hello", [("ce_id", b"9"), CE_TYPE], "invalid_json", None, "9"),
        (None, [("ce_id", b"9"), CE_TYPE], "empty_record", None, "9"),
        (b"[]", [("ce_id", b"9"), CE_TYPE], "invalid_field", "data", "9"),
    ],
)  # fmt: skip
def test_headers_that_are_wrong_are_named_like_attributes(
    value: bytes | None, headers: Headers, code: str, field: str | None, readable: str | None
) -> None:
    assert refusal(value, headers) == (code, field, readable)


# ---- nothing unforeseen --------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False,
    allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip
almost_events = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values | st.just("1"),
        "type": json_values | st.sampled_from(["cortex.nlp.embed.v1", "cortex.nlp.classify.v1"]),
        "data": json_values
        | st.fixed_dictionaries(
            {},
            optional={
                "texts": json_values | st.lists(st.text(), max_size=5),
                "labels": json_values | st.lists(st.text(), max_size=5),
                "model": json_values | st.text(max_size=5),
            },
        ),
        "time": json_values | st.datetimes(timezones=st.timezones()).map(lambda t: t.isoformat()),
        "source": json_values,
        "priority": json_values,
        "deadlinems": json_values,
    },
)
headers_of_any_kind = st.lists(
    st.tuples(
        st.sampled_from(["ce_id", "ce_type", "ce_deadlinems", "ce_time", "x", "cortex_handover"]),
        st.none() | st.binary(max_size=20),
    ),
    max_size=5,
)


def only_refuses(value: bytes | None, headers: Headers) -> None:
    envelope = None
    place = source(headers=headers)
    with suppress(Refused):
        envelope = decode(value, place, limits=LIMITS)
        validated(envelope)

    asker = _asker(value, place, envelope)
    assert asker.request_id is None or 1 <= len(asker.request_id) <= 256
    assert asker.source


@given(st.none() | st.binary(), headers_of_any_kind)
def test_no_bytes_raise_anything_but_a_refusal(value: bytes | None, headers: Headers) -> None:
    only_refuses(value, headers)


@given(json_values | almost_events, headers_of_any_kind)
def test_no_json_raises_anything_but_a_refusal(value: Any, headers: Headers) -> None:
    only_refuses(orjson.dumps(value), headers)


@given(almost_events, st.integers(0), st.binary(max_size=3))
def test_no_damaged_event_raises_anything_but_a_refusal(
    value: Any, position: int, damage: bytes
) -> None:
    whole = orjson.dumps(value)
    cut = position % (len(whole) + 1)

    only_refuses(whole[:cut] + damage + whole[cut + len(damage) :], ())


@given(almost_events)
def test_an_id_is_read_in_the_same_way_before_and_after_decoding(value: Any) -> None:
    whole = orjson.dumps({"id": value.get("id"), "x": "y"})
    envelope = decode(whole, source(), limits=LIMITS)

    decoded, _ = readable_id(whole, source(), envelope)
    raw, _ = readable_id(whole, source(), None)

    assert raw is None or raw == decoded


def test_attributes_are_checked_before_data() -> None:
    envelope = Envelope({"id": "1", "type": "t"}, {"texts": []})

    assert read_attributes(envelope).type == "t"


# ---- no input costs more than its size ------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.no_cover  # tracing costs ten times what is measured
@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_mebibyte_costs_little_cpu(value: bytes) -> None:
    assert MEBIBYTE - 400 < len(value) <= MEBIBYTE

    spent_s = min(_cost_s(value) for _ in range(3))

    # 5 to 50 ms measured. Whether the machine is slow takes a second to find out.
    assert spent_s < 0.1 or spent_s < 0.1 * slowness()


def _cost_s(value: bytes) -> float:
    began_s = process_time()
    only_refuses(value, ())
    return process_time() - began_s


def test_ten_thousand_unknown_fields_are_one_refusal() -> None:
    fields = {f"field{n}": n for n in range(10_000)}

    assert refusal(data(**fields)) == ("invalid_field", "data.field0", "1")
    assert read(event(**fields)).attributes.id == "1"  # as extension attributes they are ignored


def test_labels_may_be_left_out() -> None:
    asked = read(request(type="cortex.nlp.classify.v1")).data

    assert isinstance(asked, ClassifyData)
    assert asked.labels is None
