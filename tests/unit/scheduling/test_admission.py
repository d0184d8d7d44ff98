import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.errors import InvariantError
from cortex_stream.scheduling.admission import Admission, Bound


@pytest.fixture
def admission() -> Admission:
    return Admission({"a": Bound(10, 1000), "b": Bound(5, 1000)})


def test_room_is_what_the_bound_leaves(admission: Admission) -> None:
    admission.take("a", records=4, size_bytes=100)

    assert admission.room("a") == 6
    assert admission.waiting("a") == 4
    assert admission.capacity("a") == 10


def test_a_full_topic_takes_no_room_from_another(admission: Admission) -> None:
    admission.take("a", records=10, size_bytes=1000)

    assert admission.room("a") == 0
    assert admission.room("b") == 5


def test_used_up_bytes_leave_no_room_however_few_the_records(admission: Admission) -> None:
    admission.take("a", records=1, size_bytes=1000)

    assert admission.room("a") == 0


def test_a_poll_may_overshoot_and_room_is_never_negative(admission: Admission) -> None:
    admission.take("a", records=12, size_bytes=10)

    assert admission.room("a") == 0


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 500)), max_size=20))
def test_what_was_taken_and_given_back_leaves_the_whole_room(polls: list[tuple[int, int]]) -> None:
    admission = Admission({"a": Bound(10, 1000)})

    for records, size_bytes in polls:
        admission.take("a", records=records, size_bytes=size_bytes)
    for records, size_bytes in polls:
        admission.give_back("a", records=records, size_bytes=size_bytes)

    assert admission.room("a") == 10
    assert admission.waiting("a") == 0


@pytest.mark.parametrize(("records", "size_bytes"), [(2, 10), (1, 11)])
def test_giving_back_more_than_was_taken_is_a_bug(
    admission: Admission, records: int, size_bytes: int
) -> None:
    admission.take("a", records=1, size_bytes=10)

    with pytest.raises(InvariantError, match="giving back more of a than was taken"):
        admission.give_back("a", records=records, size_bytes=size_bytes)
