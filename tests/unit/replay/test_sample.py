"""The sample is the smallest ids, whatever comes first; each request counts once."""

import hashlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.replay.sample import SmallestIds, Tally
from schemas.outcomes import OutcomeKind


def identity(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


numbers = st.lists(st.integers(0, 50), max_size=120)


@given(numbers, st.integers(1, 30))
def test_the_sample_is_the_smallest_ids_in_any_order_and_however_often(
    given_numbers: list[int], most: int
) -> None:
    sample = SmallestIds(most)

    for number in given_numbers:
        sample.add(identity(number), 1)

    ids = sorted({identity(number) for number in given_numbers})
    assert [each for each in ids if each in sample] == ids[:most]
    assert len(sample) == min(most, len(ids))


@given(st.permutations(range(20)), st.integers(5, 40), st.data())
def test_weights_are_bounded_and_the_sample_is_the_same_in_any_order(
    order: list[int], most: int, data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.integers(1, 9), min_size=20, max_size=20))

    chosen = []
    for numbers_in_order in (order, range(20)):
        sample = SmallestIds(most)
        for number in numbers_in_order:
            sample.add(identity(number), weights[number])
        chosen.append({number for number in range(20) if identity(number) in sample})

    assert sum(weights[number] for number in chosen[0]) <= max(most, 9)
    assert chosen[0] == chosen[1]


def test_one_request_that_is_heavier_than_the_sample_is_still_compared() -> None:
    sample = SmallestIds(2)

    sample.add(identity(1), 100)

    assert identity(1) in sample


outcomes = st.lists(st.tuples(st.integers(0, 20), st.sampled_from(OutcomeKind)), max_size=100)


@given(st.lists(st.integers(0, 20), max_size=60), outcomes)
def test_each_expected_request_counts_once_and_a_result_supersedes(
    expected: list[int], seen: list[tuple[int, OutcomeKind]]
) -> None:
    tally = Tally()

    for number in expected:
        tally.expect(identity(number))
    for number, kind in seen:
        tally.see(identity(number), kind)

    order = list(OutcomeKind)
    best: dict[int, OutcomeKind] = {}
    for number, kind in seen:
        if number in expected:
            best[number] = min(best.get(number, kind), kind, key=order.index)
    counts = Counter(best.values())
    assert tally.expected() == len(set(expected))
    assert tally.missing() == len(set(expected)) - len(best)
    assert {kind: count for (kind, _), count in tally.ends().items() if count} == counts


def test_endings_are_told_apart_by_error_code() -> None:
    tally = Tally()
    for number, code in enumerate(["stuck_run", "stuck_run", "internal"]):
        tally.expect(identity(number))
        tally.see(identity(number), OutcomeKind.DEAD_LETTER, code)

    assert tally.ends() == {
        (OutcomeKind.DEAD_LETTER, "stuck_run"): 2,
        (OutcomeKind.DEAD_LETTER, "internal"): 1,
    }
