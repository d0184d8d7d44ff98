import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.errors import InvariantError
from cortex_stream.scheduling.admission import NO_ROOM, Admission, Bound, Room

MIB = 1 << 20
PLENTY = 10**12


def admission_of(total_bytes: int = PLENTY, **bounds: Bound) -> Admission:
    return Admission(bounds, total_bytes=total_bytes)


@pytest.fixture
def admission() -> Admission:
    return admission_of(a=Bound(10, 1000), b=Bound(5, 1000))


def test_room_is_what_the_bound_leaves() -> None:
    admission = admission_of(a=Bound(200, 1000))

    admission.take("a", records=40, size_bytes=100)

    assert admission.room("a") == Room(160, 900)
    assert admission.waiting("a") == 40
    assert admission.capacity("a") == 200
    assert admission.held_bytes("a") == admission.held_bytes() == 100


def test_a_full_topic_takes_no_room_from_another(admission: Admission) -> None:
    admission.take("a", records=10, size_bytes=1000)

    assert admission.room("a") is NO_ROOM
    assert admission.room("b") == Room(5, 1000)


def test_used_up_bytes_leave_no_room_however_few_the_records(admission: Admission) -> None:
    admission.take("a", records=1, size_bytes=1000)

    assert admission.room("a") is NO_ROOM


def test_a_poll_may_overshoot_and_room_is_never_negative(admission: Admission) -> None:
    admission.take("a", records=12, size_bytes=1200)

    assert admission.room("a") is NO_ROOM


def test_fewer_records_than_are_worth_a_poll_are_no_room() -> None:
    admission = admission_of(a=Bound(200, 1000))
    admission.take("a", records=151, size_bytes=0)
    assert admission.room("a") is NO_ROOM

    admission.give_back("a", records=1, size_bytes=0)

    assert admission.room("a").records == 50


def test_less_memory_than_is_worth_a_poll_is_no_room() -> None:
    admission = admission_of(a=Bound(200, 1000))
    admission.take("a", records=1, size_bytes=751)
    assert admission.room("a") is NO_ROOM

    admission.give_back("a", records=0, size_bytes=1)

    assert admission.room("a").size_bytes == 250


def test_what_all_topics_hold_together_is_bounded() -> None:
    # Of 1000 bytes, 250 are kept for each of two topics and 500 are for whoever comes first.
    admission = admission_of(1000, a=Bound(100, 1000), b=Bound(100, 1000))
    assert admission.room("a") == Room(100, 750)

    admission.take("a", records=1, size_bytes=550)

    assert admission.room("a") == Room(99, 200)
    assert admission.room("b") == Room(100, 450)
    assert admission.room("b", beside_bytes=180) == Room(100, 270)


def test_a_topic_keeps_its_own_part_however_much_the_others_hold() -> None:
    admission = admission_of(1000, a=Bound(100, 1000), b=Bound(100, 1000))

    admission.take("a", records=1, size_bytes=5000)

    assert admission.room("b") == Room(100, 250)
    assert admission.room("b", beside_bytes=5000) == Room(100, 250)


def test_a_paused_topic_has_no_room_and_the_others_have_theirs(admission: Admission) -> None:
    admission.paused = frozenset({"a"})

    assert admission.room("a") is NO_ROOM
    assert admission.room("b") == Room(5, 1000)
    assert admission.topics == {"a", "b"}


polls = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 20), st.integers(0, 500)), max_size=30
)


@given(polls)
def test_what_was_taken_and_given_back_leaves_the_whole_room(
    polls: list[tuple[str, int, int]],
) -> None:
    admission = admission_of(1200, a=Bound(10, 900), b=Bound(10, 900), c=Bound(10, 900))
    whole = {topic: admission.room(topic) for topic in "abc"}

    for topic, records, size_bytes in polls:
        admission.take(topic, records=records, size_bytes=size_bytes)
    for topic, records, size_bytes in reversed(polls):
        admission.give_back(topic, records=records, size_bytes=size_bytes)

    assert {topic: admission.room(topic) for topic in "abc"} == whole
    assert admission.held_bytes() == 0


@given(polls, st.integers(1, 200))
def test_the_total_is_never_exceeded_by_more_than_the_last_record_of_each_topic(
    polls: list[tuple[str, int, int]], total_bytes: int
) -> None:
    admission = admission_of(total_bytes, a=Bound(9, 90), b=Bound(9, 90), c=Bound(9, 90))
    heaviest = dict.fromkeys("abc", 0)

    for topic, _, size_bytes in polls:
        if admission.room(topic) is not NO_ROOM:
            admission.take(topic, records=1, size_bytes=size_bytes)
            heaviest[topic] = max(heaviest[topic], size_bytes)

        assert admission.held_bytes() <= total_bytes + sum(heaviest.values())
        assert all(admission.held_bytes(each) <= 90 + heaviest[each] for each in "abc")


@given(polls)
def test_an_idle_topic_always_has_room(polls: list[tuple[str, int, int]]) -> None:
    admission = admission_of(1200, a=Bound(10, 900), b=Bound(10, 900), c=Bound(10, 900))

    for topic, records, size_bytes in polls:
        if topic != "c":
            admission.take(topic, records=records, size_bytes=size_bytes)

    assert admission.room("c") is not NO_ROOM


@pytest.mark.parametrize(("records", "size_bytes"), [(2, 10), (1, 11)])
def test_giving_back_more_than_was_taken_is_a_bug(
    admission: Admission, records: int, size_bytes: int
) -> None:
    admission.take("a", records=1, size_bytes=10)

    with pytest.raises(InvariantError, match="giving back more of a than was taken"):
        admission.give_back("a", records=records, size_bytes=size_bytes)


def test_a_topic_is_crowded_from_an_eighth_of_its_records_on() -> None:
    admission = admission_of(a=Bound(800, PLENTY), b=Bound(800, PLENTY))

    admission.take("a", records=99, size_bytes=99)
    before = admission.crowded("a")
    admission.take("a", records=1, size_bytes=1)

    assert (before, admission.crowded("a"), admission.crowded("b")) == (False, True, False)


@pytest.mark.parametrize(("most", "crowd"), [(1, 1), (8, 6), (40, 30), (200, 50), (400, 50)])
def test_few_records_are_no_crowd_unless_there_may_be_few(most: int, crowd: int) -> None:
    admission = admission_of(a=Bound(most, PLENTY))

    admission.take("a", records=crowd - 1, size_bytes=crowd - 1)
    before = admission.crowded("a")
    admission.take("a", records=1, size_bytes=1)

    assert (before, admission.crowded("a")) == (False, True)


def test_a_topic_is_crowded_from_an_eighth_of_its_bytes_on() -> None:
    admission = admission_of(a=Bound(PLENTY, 1000))

    admission.take("a", records=1, size_bytes=124)
    before = admission.crowded("a")
    admission.take("a", records=1, size_bytes=1)

    assert (before, admission.crowded("a")) == (False, True)


def test_a_topic_is_crowded_early_where_others_hold_the_memory_that_all_share() -> None:
    admission = admission_of(8000, a=Bound(PLENTY, 8000), b=Bound(PLENTY, 8000))  # 2000 of its own
    admission.take("a", records=1, size_bytes=600)
    alone = admission.crowded("a")

    admission.take("b", records=1, size_bytes=6000)

    assert (alone, admission.crowded("a")) == (False, True)
