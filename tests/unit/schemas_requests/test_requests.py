import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.priority import Priority
from schemas.requests import EmbedData, EmbedRequest, RequestAttributes


def attributes(**given_ones: object) -> RequestAttributes:
    return RequestAttributes.model_validate({"id": "1", "type": "t", **given_ones})


def test_only_id_type_and_data_are_demanded() -> None:
    request = EmbedRequest.model_validate(
        {"id": "1", "type": "cortex.nlp.embed.v1", "data": {"texts": ["hello"]}}
    )

    assert (request.source, request.specversion, request.tenant) == ("//unknown", "1.0", None)
    assert request.data == EmbedData(texts=["hello"], encoding_format="base64")


@pytest.mark.parametrize(
    ("written", "hour"),
    [
        ("2026-01-31T12:00:00Z", 12),
        ("2026-01-31T12:00:00.123456Z", 12),
        ("2026-01-31T12:00:00+02:00", 10),
        ("2026-01-31T12:00:00-05:30", 17),
    ],
)
def test_time_is_rfc_3339_with_an_offset(written: str, hour: int) -> None:
    time = attributes(time=written).time

    assert time is not None
    assert time.astimezone(dt.UTC).hour == hour


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("2026-01-31T12:00:00", "has no offset; write UTC as 2026-01-31T12:00:00Z"),
        ("yesterday", "is not an RFC 3339 time such as 2026-01-31T12:00:00Z"),
        (1769860800, "valid datetime"),
    ],
)
def test_another_time_is_refused_with_what_to_write(written: object, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        attributes(time=written)


@given(st.text())
def test_no_text_breaks_the_reading_of_time(written: str) -> None:
    try:
        attributes(time=written)
    except ValidationError:
        return


def test_priority_is_read_from_its_name() -> None:
    assert attributes(priority="low").priority is Priority.LOW


@pytest.mark.parametrize(
    "reference", ["minilm", "minilm@1", "e5-small.v2@2026-01-31", "a", "a" * 64]
)
def test_a_model_is_named_by_name_or_name_and_version(reference: str) -> None:
    assert EmbedData(texts=["x"], model=reference).model == reference


@pytest.mark.parametrize(
    "reference", ["", "Minilm", "../etc", "a@", "a@..", "a@1@2", "a b", "a\n", "a" * 65, "-a"]
)
def test_no_other_spelling_names_a_model(reference: str) -> None:
    with pytest.raises(ValidationError):
        EmbedData(texts=["x"], model=reference)
