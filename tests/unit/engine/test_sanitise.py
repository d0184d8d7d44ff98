import unicodedata
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.engine import validate as module
from cortex_stream.engine.parse import decode, read_attributes
from cortex_stream.engine.validate import payload_digest, sanitise, validate
from cortex_stream.errors import InvalidField
from schemas.requests import ClassifyData
from tests.unit.engine.desk import LIMITS, request, source

CONTROL = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) == "Cc"]


def test_tab_newline_and_carriage_return_stay_and_other_control_characters_become_a_space() -> None:
    for char in CONTROL:
        if char != "\x00":
            kept = char if char in "\t\n\r" else " "
            assert sanitise(f"a{char}b", field="f") == f"a{kept}b"


def test_nul_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidField, match=r"data.texts\[0\]: has a NUL character at 2") as refused:
        sanitise("ab\x00", field="data.texts[0]")

    assert refused.value.field == "data.texts[0]"


@given(st.text().filter(lambda text: "\x00" not in text))
def test_a_sanitised_text_is_nfc_and_sanitising_it_again_changes_nothing(text: str) -> None:
    once = sanitise(text, field="f")

    assert unicodedata.is_normalized("NFC", once)
    assert sanitise(once, field="f") == once


def test_texts_and_labels_are_sanitised() -> None:
    value = request(["e\u0301\x01"], type="cortex.nlp.classify.v1", data={"labels": ["a\x7f"]})
    envelope = decode(value, source(), limits=LIMITS)

    attributes = read_attributes(envelope)
    data = validate(attributes, envelope.data, limits=LIMITS).data

    assert isinstance(data, ClassifyData)
    assert (data.texts, data.labels) == (["\u00e9 "], ["a "])


@pytest.mark.parametrize("text", ["—" * 100, "\U0001f600" * 100, "Z" + "\u0300" * 30 + "a"])
def test_long_runs_of_punctuation_and_usual_counts_of_marks_stay_as_they_are(text: str) -> None:
    assert sanitise(text, field="f") == text


def test_more_than_30_combining_marks_in_a_row_get_a_joiner() -> None:
    assert sanitise("Z" + "\u0300" * 70, field="f") == (
        "Z" + "\u0300" * 30 + "\u034f" + "\u0300" * 30 + "\u034f" + "\u0300" * 10
    )


@pytest.mark.alone
@pytest.mark.no_cover  # tracing costs ten times what is measured
@pytest.mark.parametrize("marks", ["\u0300\u0316", "\u0f73", "\u0344"], ids=ascii)
def test_marks_without_end_do_not_cost_quadratic_time(marks: str) -> None:
    text = "a" + marks * (10_000 // len(marks))
    in_order = "a" + "\u0300" * 5000 + "\u0316" * 5000  # each has to pass all before it

    began_s = process_time()
    sanitise(text, field="f")
    sanitise(in_order, field="f")
    spent_s = process_time() - began_s

    assert spent_s < 0.05  # 2 ms measured; 150 ms without the joiner


def test_every_combining_mark_is_found() -> None:
    for code in range(0x110000):
        char = chr(code)
        if not 0xD800 <= code < 0xE000 and unicodedata.combining(
            unicodedata.normalize("NFD", char)[0]
        ):
            assert module._MARKS.fullmatch(char * 31)
            assert unicodedata.combining(char) or char in module._MARKS_OF_CLASS_0


@given(st.dictionaries(st.text(), st.integers(-(2**63), 2**64 - 1) | st.text()))
def test_the_digest_is_the_same_for_any_order_of_keys(data: dict[str, object]) -> None:
    turned = dict(reversed(data.items()))

    assert payload_digest("t", data) == payload_digest("t", turned)
    assert payload_digest("t", data) != payload_digest("u", data)
