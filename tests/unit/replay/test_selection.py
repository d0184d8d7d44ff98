"""What a record asks, whether it is picked, and the id that its outcome has or will have."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.dead_letters import redrive
from cortex_stream.delivery.identity import outcome_id, unreadable_outcome_id
from cortex_stream.engine.validate import payload_digest
from cortex_stream.errors import OperatorError
from cortex_stream.record import Headers, RecordSource
from cortex_stream.replay.selection import (
    MOST_RECORD_BYTES,
    Asked,
    Selection,
    parse_filters,
    read_asked,
)
from cortex_stream.settings.sections import LimitsSettings
from tests.unit.replay.test_plan import a_plan

EMBED = "cortex.nlp.embed.v1"
DATA = {"texts": ["hello", "world"]}


def asked(value: bytes | None, headers: Headers = ()) -> Asked:
    source = RecordSource("t.requests", 2, 7, 0, 0.0, headers=headers)
    return read_asked(value, source, limits=LimitsSettings())


def request(**changed: object) -> bytes:
    return orjson.dumps({"id": "1", "type": EMBED, "data": DATA, **changed})


def test_a_request_is_read_with_its_defaults() -> None:
    found = asked(request())

    assert (found.type, found.texts) == (EMBED, 2)
    assert found.fields == {"id": "1", "source": "//unknown", "tenant": "//unknown"}


def test_stated_attributes_are_read() -> None:
    found = asked(request(source="//a", tenant="acme", subject="doc-1"))

    assert found.fields == {"id": "1", "source": "//a", "tenant": "acme", "subject": "doc-1"}


def test_a_binary_request_is_read_from_its_headers() -> None:
    headers = (("ce_id", b"1"), ("ce_type", EMBED.encode()), ("ce_source", b"//a"))

    found = asked(orjson.dumps(DATA), headers)

    assert found.fields["source"] == "//a"
    assert found.texts == 2


def test_the_outcome_id_is_that_of_the_request_and_another_one_for_a_replay() -> None:
    found = asked(request(source="//a"))
    digest = payload_digest(EMBED, DATA)

    for replay_id in (None, "nightly"):
        assert found.outcome_id(replay_id) == outcome_id(
            source="//a", request_id="1", payload_digest=digest, replay_id=replay_id
        )
    assert found.outcome_id(None) != found.outcome_id("nightly")


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"[1]", b"{"])
def test_what_cannot_be_read_has_the_outcome_id_of_its_place(value: bytes | None) -> None:
    found = asked(value)

    assert found.texts == 1
    assert found.type is None
    assert found.outcome_id("r") == unreadable_outcome_id(
        topic="t.requests", partition=2, offset=7, replay_id="r"
    )


@pytest.mark.parametrize("data", [None, 5, {"texts": "one"}, {"texts": []}])
def test_a_request_without_texts_counts_as_one(data: object) -> None:
    assert asked(request(data=data)).texts == 1


@given(st.binary(max_size=200))
def test_no_bytes_are_too_strange_to_be_read(value: bytes) -> None:
    assert len(asked(value).outcome_id("r")) == 32


def selection(**changed: object) -> Selection:
    return Selection.of(a_plan(**changed))


def test_without_types_and_filters_everything_is_picked_unread() -> None:
    everything = selection()

    assert not everything.reads_values
    assert everything.picks(asked(b"{"))


def test_any_of_the_types_is_picked() -> None:
    some = selection(types=(EMBED, "other"))

    assert some.reads_values
    assert some.picks(asked(request()))
    assert not some.picks(asked(request(type="third")))
    assert not some.picks(asked(b"{"))


def test_each_named_field_must_have_one_of_its_values() -> None:
    some = selection(filters=parse_filters(["tenant=a", "tenant=b", "subject=x=y"]))

    assert some.picks(asked(request(tenant="b", subject="x=y")))
    assert not some.picks(asked(request(tenant="c", subject="x=y")))
    assert not some.picks(asked(request(tenant="a")))


def test_times_are_picked_from_the_beginning_to_before_the_end() -> None:
    some = Selection(frozenset(), {}, since_ms=5, until_ms=8)

    assert [some.picks_time(ms) for ms in (4, 5, 7, 8)] == [False, True, True, False]
    assert selection().picks_time(-1)


def test_what_would_not_fit_with_our_header_does_not_fit() -> None:
    headers = (("a", b"1"), ("none", None))
    rest = len(b"key") + (1 + 1 + 10) + (4 + 10)

    assert Selection.fits(b"key", b"x" * (MOST_RECORD_BYTES - rest), headers)
    assert not Selection.fits(b"key", b"x" * (MOST_RECORD_BYTES - rest + 1), headers)
    assert Selection.fits(None, None, ())


def test_a_replay_and_a_redrive_have_one_limit() -> None:
    assert MOST_RECORD_BYTES == redrive.MOST_RECORD_BYTES


@pytest.mark.parametrize("text", ["tenant", "model=x", "=x", ""])
def test_another_filter_is_refused(text: str) -> None:
    with pytest.raises(OperatorError, match="one of id, source, subject, tenant"):
        parse_filters([text])
