import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.dead_letters.letter import (
    OURS,
    Asked,
    Origin,
    Place,
    asked_by,
    parse_place,
    read_letter,
    with_original,
)
from cortex_stream.errors import PoisonousRecord
from schemas import dead_letters as names
from tests.unit.dead_letters.letters import LIMITS, VALUE, letter


def test_a_letter_says_what_went_wrong_and_who_asked_what() -> None:
    found = letter(redrives=2)

    assert found.place == Place(0, 42)
    assert (found.code, found.error_class) == ("invalid_field", "InvalidField")
    assert found.message == "data.texts: Field required"
    assert (found.stage, found.worker, found.model) == ("validation", "worker-0", "minilm@1")
    assert (found.attempts, found.first_ms, found.last_ms, found.redrives) == (2, 1000, 2000, 2)
    assert found.origin == Origin("cortex.requests.high", 3, 7, 1_600_000_000_000)
    assert found.asked == Asked("r1", "cortex.nlp.embed.v1", "//lake", "//lake")
    assert (found.size_bytes, found.truncated) == (len(VALUE), False)


def test_a_letter_whose_record_ended_its_worker_is_not_decoded() -> None:
    found = letter(error=PoisonousRecord("delivered 3 times"))

    assert found.harmful
    assert found.asked == Asked("r1")  # its id stands in front; nothing behind it was looked at
    assert not letter().harmful


header_names = st.text().filter(lambda name: name not in OURS)
headers = st.lists(st.tuples(header_names, st.none() | st.binary()))


@given(value=st.none() | st.binary(), key=st.binary(), headers=headers)
def test_key_value_and_headers_are_those_of_the_record(
    value: bytes | None, key: bytes, headers: list[tuple[str, bytes | None]]
) -> None:
    found = letter(value, key=key, headers=headers)

    assert (found.key, found.value, list(found.original_headers)) == (key, value, headers)


@given(
    value=st.none() | st.binary(),
    key=st.none() | st.binary(),
    headers=st.lists(
        st.tuples(st.sampled_from(sorted(OURS)) | st.text(), st.none() | st.binary(max_size=30))
    ),
)
def test_whatever_others_wrote_is_a_letter(
    value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    found = read_letter(
        place=Place(0, 0), written_ms=-1, key=key, value=value, headers=headers, limits=LIMITS
    )

    assert (found.key, found.value, found.headers) == (key, value, tuple(headers))
    assert found.code
    assert found.redrives >= 0


@pytest.mark.parametrize("damage", [b"", b"-", b"x", b"1.5", b"9" * 17, b"9" * 16, b"\xff", b"-1"])
@pytest.mark.parametrize("name", [names.ORIGINAL_PARTITION, names.ORIGINAL_OFFSET])
def test_a_letter_with_damaged_coordinates_has_no_origin(name: str, damage: bytes) -> None:
    assert letter(add=[(name, damage)]).origin is None


def test_a_damaged_timestamp_is_none() -> None:
    origin = letter(add=[(names.ORIGINAL_TIMESTAMP, b"soon")]).origin

    assert origin is not None
    assert origin.timestamp_ms == -1


def test_a_letter_without_a_topic_or_code_says_unknown_and_has_no_origin() -> None:
    found = letter(add=[(names.ORIGINAL_TOPIC, None), (names.CODE, None)])

    assert (found.code, found.origin) == ("unknown", None)


def test_a_letter_in_pointer_form_knows_the_size_and_takes_up_its_original() -> None:
    pointer = letter(copy=False)
    assert (pointer.truncated, pointer.size_bytes, pointer.value) == (True, len(VALUE), b"")

    whole = with_original(pointer, key=b"k", value=VALUE, headers=[("a", b"1")], limits=LIMITS)

    assert (whole.key, whole.value, whole.truncated) == (b"k", VALUE, False)
    assert whole.original_headers == (("a", b"1"),)
    assert whole.asked.request_id == "r1"
    assert whole.code == pointer.code


def test_a_binary_request_is_read_from_its_headers() -> None:
    asked = asked_by(
        b'{"texts":["a"]}',
        [("ce_id", b"r2"), ("ce_type", b"t"), ("ce_tenant", b"acme"), ("ce_deadlinems", b"250")],
        limits=LIMITS,
    )

    assert asked == Asked("r2", "t", None, "acme", 250)


def test_a_binary_request_whose_data_cannot_be_decoded_still_has_its_type() -> None:
    asked = asked_by(b"{", [("ce_id", b"r2"), ("ce_type", b"t")], limits=LIMITS)

    assert (asked.request_id, asked.type) == ("r2", "t")


@pytest.mark.parametrize("deadline", [b"-1", b"true", b"1.5", b'"7"', b"9007199254740993"])
def test_a_deadline_that_cannot_be_right_is_none(deadline: bytes) -> None:
    value = b'{"id":"1","deadlinems":%s}' % deadline

    assert asked_by(value, (), limits=LIMITS).deadline_ms is None


def test_of_a_value_too_large_for_a_request_the_id_is_found_if_it_comes_first() -> None:
    value = b'{"id":"big","type":"t","data":"%s"}' % (b"x" * LIMITS.request_bytes)

    assert asked_by(value, (), limits=LIMITS) == Asked("big", None, None, "//unknown", None)


def test_a_list_needs_no_payload() -> None:
    slim = letter(headers=[("a", b"x" * 1000)]).without_payload()

    assert (slim.key, slim.value, slim.headers) == (None, None, ())
    assert slim.asked.request_id == "r1"
    assert slim.size_bytes == len(VALUE)


def test_a_place_is_written_and_read_alike() -> None:
    assert parse_place(str(Place(2, 1234))) == Place(2, 1234)


@pytest.mark.parametrize("text", ["", "42", "0:", ":1", "a:1", "0:-1", "0:1:2", "0:" + "1" * 17])
def test_what_names_no_place_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 0:42"):
        parse_place(text)
