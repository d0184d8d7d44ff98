import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.delivery.dead_letter import (
    MAX_COPY_BYTES,
    Failure,
    dead_letter,
    truncate_utf8,
)
from cortex_stream.errors import InvalidField
from cortex_stream.record import Headers, RecordSource
from schemas import dead_letters as names

OURS = {*names.HEADERS, names.TRUNCATED}
FAILURE = Failure(
    error=InvalidField("data.texts: Field required", field="data.texts"),
    stage="validation",
    attempts=2,
    worker="worker-0",
    model="minilm@1",
    first_unix_ms=1000,
    last_unix_ms=2000,
)


def source(*, key: bytes | None = b"key", headers: Headers = ()) -> RecordSource:
    return RecordSource(
        "cortex.requests.low", 3, 42, 1_700_000_000_000, 0.0, key=key, headers=headers
    )


@given(
    value=st.none() | st.binary(),
    key=st.none() | st.binary(),
    headers=st.lists(
        st.tuples(st.text().filter(lambda name: name not in OURS), st.none() | st.binary())
    ),
)
def test_key_value_and_headers_are_what_they_were(
    value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    letter = dead_letter(value, source(key=key, headers=headers), FAILURE, max_message_bytes=8192)

    kept = b"" if key is None and value is None else value  # no client writes neither
    assert (letter.topic, letter.key, letter.value) == ("cortex.dead-letters", key, kept)
    assert list(letter.headers)[: len(headers)] == headers


def test_headers_tell_what_went_wrong_and_where_the_record_was() -> None:
    letter = dead_letter(b"{}", source(), FAILURE, max_message_bytes=8192)

    assert dict(letter.headers) == {
        "cortex_dlt-code": b"invalid_field",
        "cortex_dlt-message": b"data.texts: Field required",
        "cortex_dlt-class": b"InvalidField",
        "cortex_dlt-stage": b"validation",
        "cortex_dlt-attempts": b"2",
        "cortex_dlt-worker": b"worker-0",
        "cortex_dlt-model": b"minilm@1",
        "cortex_dlt-first-time": b"1000",
        "cortex_dlt-last-time": b"2000",
        "cortex_dlt-original-topic": b"cortex.requests.low",
        "cortex_dlt-original-partition": b"3",
        "cortex_dlt-original-offset": b"42",
        "cortex_dlt-original-timestamp": b"1700000000000",
    }
    assert tuple(name for name, _ in letter.headers) == names.HEADERS


def test_a_letter_of_a_letter_tells_of_the_last_failure_only() -> None:
    first = dead_letter(b"{}", source(headers=[("trace", b"1")]), FAILURE, max_message_bytes=8192)
    truncated = [*first.headers, (names.TRUNCATED, b"9")]

    again = dead_letter(b"{}", source(headers=truncated), FAILURE, max_message_bytes=8192)

    assert again.headers == first.headers


def test_a_value_that_would_not_fit_is_replaced_by_its_size() -> None:
    value = b"x" * MAX_COPY_BYTES

    letter = dead_letter(value, source(headers=[("trace", b"1")]), FAILURE, max_message_bytes=8192)

    assert (letter.key, letter.value) == (b"key", b"")
    assert dict(letter.headers)[names.TRUNCATED] == str(len(value)).encode()
    assert dict(letter.headers)["trace"] == b"1"


def test_the_largest_value_that_fits_is_kept() -> None:
    value = b"x" * (MAX_COPY_BYTES - len(b"key"))

    letter = dead_letter(value, source(), FAILURE, max_message_bytes=8192)

    assert letter.value == value
    assert names.TRUNCATED not in dict(letter.headers)


@pytest.mark.parametrize(
    "headers",
    [[("h", b"x" * MAX_COPY_BYTES)], [("\N{PILE OF POO}" * (MAX_COPY_BYTES // 4), b"x")]],
    ids=["value", "name"],
)
def test_headers_that_would_not_fit_are_left_out_with_the_key(
    headers: list[tuple[str, bytes | None]],
) -> None:
    letter = dead_letter(b"{}", source(headers=headers), FAILURE, max_message_bytes=8192)

    assert (letter.key, letter.value) == (None, b"")
    assert [name for name, _ in letter.headers] == [*names.HEADERS, names.TRUNCATED]


@given(st.text(), st.integers(0, 50))
def test_a_cut_text_never_ends_within_a_character(text: str, max_bytes: int) -> None:
    cut = truncate_utf8(text, max_bytes)

    assert len(cut) <= max_bytes
    assert text.encode().startswith(cut)
    assert len(cut) > max_bytes - 4 or cut == text.encode()
    assert cut.decode() in text


def test_lone_surrogates_do_not_break_a_message() -> None:
    assert truncate_utf8("a\ud800b", 10) == b"a?b"


def test_the_message_is_bounded() -> None:
    failure = Failure(InvalidField("é" * 10_000), "validation", 1, "w", None, 0, 0)

    letter = dead_letter(b"{}", source(), failure, max_message_bytes=8192)

    assert dict(letter.headers)[names.MESSAGE] == "é".encode() * 4096
    assert dict(letter.headers)[names.MODEL] == b""


def test_headers_are_weighed_with_their_frames() -> None:
    tiny = [("a", b"x")] * 200_000  # 0.4 MB of names and values, 2.4 MB on the wire

    letter = dead_letter(b"value", source(headers=tiny), FAILURE, max_message_bytes=8192)

    assert letter.key is None
    assert letter.value == b""
    assert {name for name, _ in letter.headers} == {*names.HEADERS, names.TRUNCATED}


def test_without_a_copy_only_the_pointer_is_left() -> None:
    letter = dead_letter(
        b"value", source(headers=[("mine", b"1")]), FAILURE, max_message_bytes=8192, copy=False
    )

    assert (letter.key, letter.value) == (None, b"")
    assert dict(letter.headers)[names.TRUNCATED] == b"5"
    assert "mine" not in dict(letter.headers)
