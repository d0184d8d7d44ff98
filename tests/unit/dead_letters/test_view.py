import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.dead_letters.redrive import Turns
from cortex_stream.dead_letters.view import (
    MOST_INDENTED_BYTES,
    described,
    exported,
    moment,
    readable,
    redriven,
)
from schemas import dead_letters as names
from tests.unit.dead_letters.letters import VALUE, letter

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


@given(json_values.filter(lambda value: isinstance(value, dict | list)))
def test_json_reads_as_the_same_json(value: object) -> None:
    encoded = json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")

    assert json.loads(readable(encoded)) == value


@given(st.binary())
def test_nothing_that_a_terminal_obeys_is_left_but_line_ends(value: bytes) -> None:
    text = readable(value)

    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in text.replace("\n", ""))


def test_text_that_is_no_json_is_shown_as_it_came_with_controls_spelt_out() -> None:
    assert readable(b"\x1b[31mred\xff\ttab\r\nnext") == "\\u001b[31mred\\xff\\u0009tab\\u000d\nnext"


def test_json_is_indented_and_every_token_stays_what_it_was() -> None:
    value = b'{"id":"a", "id":"b","n":18446744073709551616,"e":[],"o":{ },"l":[1,{"s":"\\"{:,"}]}'

    assert readable(value).split("\n") == [
        "{",
        '  "id": "a",',
        '  "id": "b",',
        '  "n": 18446744073709551616,',
        '  "e": [],',
        '  "o": {},',
        '  "l": [',
        "    1,",
        "    {",
        '      "s": "\\"{:,"',
        "    }",
        "  ]",
        "}",
    ]


def test_what_is_nested_deep_is_indented_so_far_and_no_further() -> None:
    deep = readable(b"[" * 900 + b"1" + b"]" * 900)

    assert json.loads(deep)
    assert max(map(len, deep.split("\n"))) < 70


def test_what_is_no_json_or_too_large_is_shown_as_it_came() -> None:
    large = b"[" + b"1," * (MOST_INDENTED_BYTES // 2) + b"1]"

    assert readable(large) == large.decode()
    assert readable(b"[1,") == "[1,"
    assert readable(b'"only a text"') == '"only a text"'
    assert readable(None) == readable(b"") == ""


@pytest.mark.parametrize("unix_ms", [None, -1, 10**16])
def test_a_moment_that_no_calendar_has_is_none(unix_ms: int | None) -> None:
    assert moment(unix_ms) is None


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        (Turns(), "no"),
        (Turns(1, 1), "once"),
        (Turns(3, 3), "3 times"),
        (Turns(2, 1), "interrupted"),
    ],
)
def test_it_says_how_often_a_letter_was_redriven(turns: Turns, words: str) -> None:
    assert redriven(turns) == words


def test_a_description_is_json_and_has_no_payload() -> None:
    found = json.loads(json.dumps(described(letter(), Turns(1, 1))))

    assert found["letter"] == "0:42"
    assert found["written"] == "2023-11-14T22:13:20.000Z"
    assert (found["code"], found["type"]) == ("invalid_field", "cortex.nlp.embed.v1")
    assert found["original"]["topic"] == "cortex.requests.high"
    assert found["redriven"] == "once"
    assert "value" not in found


def test_a_letter_without_an_origin_is_described_without() -> None:
    assert described(letter(add=[(names.ORIGINAL_TOPIC, b"")]), Turns())["original"] is None


def test_an_export_has_every_byte_of_the_record_and_none_of_our_headers() -> None:
    found = exported(letter(key=b"\xff", headers=[("a", b"\x00"), ("b", None)]), Turns())

    assert base64.b64decode(found["value"]) == VALUE
    assert base64.b64decode(found["key"]) == b"\xff"
    assert found["headers"] == [["a", "AA=="], ["b", None]]


def test_a_payload_that_may_do_harm_is_shown_as_it_came() -> None:
    assert readable(b'{"a":1}', parse=False) == '{"a":1}'
    assert readable(b'{"a":1}') != '{"a":1}'
