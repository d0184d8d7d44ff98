import re

from hypothesis import assume, given
from hypothesis import strategies as st

from cortex_stream.delivery.identity import outcome_id, unreadable_outcome_id

parts = st.tuples(st.text(), st.text(), st.binary(max_size=40), st.none() | st.text(min_size=1))


def identity(asked: tuple[str, str, bytes, str | None]) -> str:
    source, request_id, digest, replay = asked
    return outcome_id(source=source, request_id=request_id, payload_digest=digest, replay_id=replay)


@given(parts)
def test_the_same_request_has_the_same_id(asked: tuple[str, str, bytes, str | None]) -> None:
    assert identity(asked) == identity(asked)
    assert re.fullmatch(r"[0-9a-f]{32}", identity(asked))


@given(parts, parts)
def test_another_request_has_another_id(
    one: tuple[str, str, bytes, str | None], other: tuple[str, str, bytes, str | None]
) -> None:
    assume(one != other)

    assert identity(one) != identity(other)


@given(st.text(min_size=1), st.text())
def test_moving_characters_from_one_part_to_the_next_gives_another_id(
    source: str, request_id: str
) -> None:
    moved = (source[:-1], source[-1] + request_id, b"", None)

    assert identity((source, request_id, b"", None)) != identity(moved)


places = st.tuples(st.text(), st.integers(0), st.integers(0))


@given(places, places)
def test_a_record_without_a_readable_id_is_known_by_its_place(
    one: tuple[str, int, int], other: tuple[str, int, int]
) -> None:
    identities = [
        unreadable_outcome_id(topic=topic, partition=partition, offset=offset)
        for topic, partition, offset in (one, other)
    ]

    assert (identities[0] == identities[1]) == (one == other)


def test_the_id_never_changes_between_releases() -> None:
    """Sinks hold ids of earlier releases: another way to compute them would double outcomes."""
    assert identity(("//shop", "order-1", b"\x01" * 32, None)) == "011c5a61ef00d2eba07a1e5951e55001"
