from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.scheduling.fair_shares import MOST_KNOWN, FairShares


def test_nobody_is_next_while_nobody_has_work() -> None:
    shares: FairShares[str] = FairShares()
    assert shares.take_turn() is None

    shares.join("a")
    shares.leave("a")

    assert shares.take_turn() is None


def test_whoever_has_used_least_is_next() -> None:
    shares: FairShares[str] = FairShares()
    shares.join("a")
    shares.join("b")

    turns = []
    for _ in range(6):
        key = shares.take_turn()
        assert key is not None
        turns.append(key)
        shares.charge(key, 1.0 if key == "a" else 2.0)

    assert turns == ["a", "b", "a", "b", "a", "a"]


def test_of_those_alike_the_lowest_rank_is_next_and_of_one_rank_the_first_to_join() -> None:
    ranked: FairShares[str] = FairShares()
    ranked.join("later", rank=1)
    ranked.join("first", rank=0)
    by_arrival: FairShares[str] = FairShares()
    by_arrival.join("x")
    by_arrival.join("a")

    assert ranked.take_turn() == "first"
    assert by_arrival.take_turn() == "x"


def test_those_who_are_within_a_quantum_take_turns() -> None:
    shares: FairShares[str] = FairShares(quantum=100.0)
    shares.join("flood")
    shares.join("had one long text")
    for tenant, tokens in (("flood", 20.0), ("had one long text", 90.0)):
        assert shares.take_turn() == tenant
        shares.charge(tenant, tokens)
    shares.join("newcomer")

    turns = []
    for _ in range(6):
        key = shares.take_turn()
        assert key is not None
        turns.append(key)
        shares.charge(key, 20.0)

    # then: once round, whoever has used how much; who has used its quantum up waits for the others
    assert turns[:3] == ["flood", "had one long text", "newcomer"]
    assert turns[3:] == ["flood", "newcomer", "flood"]


def test_short_rests_within_a_quantum_win_nothing() -> None:
    shares: FairShares[str] = FairShares(quantum=100.0)
    shares.join("busy")
    shares.join("hasty")
    tokens = Counter[str]()
    rests = 0

    for _ in range(1000):
        key = shares.take_turn()
        assert key is not None
        spent = 90.0 if key == "hasty" else 5.0
        shares.charge(key, spent)
        tokens[key] += int(spent)
        if key == "hasty":  # one request at a time: it comes again once it is answered
            shares.leave("hasty")
            rests = 3
        elif rests := max(0, rests - 1):
            continue
        elif "hasty" not in shares._working:
            shares.join("hasty")

    assert abs(tokens["hasty"] - tokens["busy"]) <= 100 + 90


def test_of_those_who_rest_within_a_quantum_not_all_are_known() -> None:
    shares: FairShares[int] = FairShares(quantum=100.0)
    for key in range(3 * MOST_KNOWN):
        shares.join(key)
        assert shares.take_turn() == key
        shares.charge(key, 10.0)
        shares.leave(key)
        assert shares.take_turn() is None
        assert len(shares._rested) <= MOST_KNOWN + 1


@pytest.mark.parametrize(("quantum", "turns_of_rested"), [(0.0, 10), (50.0, 12)])
def test_a_rest_saves_up_nothing_but_the_step_that_the_others_are_in(
    quantum: float, turns_of_rested: int
) -> None:
    shares: FairShares[str] = FairShares(quantum=quantum)
    shares.join("busy")
    for _ in range(104):
        assert shares.take_turn() == "busy"
        shares.charge("busy", 10.0)

    shares.join("rested")

    turns = Counter[str]()
    for _ in range(20):
        key = shares.take_turn()
        assert key is not None
        turns[key] += 1
        shares.charge(key, 10.0)
    assert turns == {"busy": 20 - turns_of_rested, "rested": turns_of_rested}


def test_a_short_rest_is_no_way_to_be_served_twice() -> None:
    shares: FairShares[str] = FairShares()
    shares.join("hasty")
    shares.join("other")
    assert shares.take_turn() == "hasty"
    shares.charge("hasty", 10.0)
    shares.leave("hasty")
    shares.join("hasty")

    assert shares.take_turn() == "other"
    assert shares.may_ride("hasty", most=10.0)
    assert not shares.may_ride("hasty", most=9.9)


def test_rides_are_charged_and_rationed_until_the_next_turn() -> None:
    shares: FairShares[str] = FairShares()
    shares.join("driver")
    shares.join("rider")
    rides = 0

    # when it could ride with every batch of another
    turns: list[str] = []
    while len(turns) < 6:
        key = shares.take_turn()
        assert key is not None
        turns.append(key)
        shares.charge(key, 4.0)
        if key == "driver" and shares.may_ride("rider", most=5.0):
            shares.charge_ride("rider", 5.0)
            rides += 1

    # then its own turn comes all the same
    assert turns == ["driver", "driver", "driver", "rider", "driver", "driver"]
    assert rides == 2 + 2  # two before each of its turns


def test_whoever_is_forgotten_has_ridden_nothing() -> None:
    shares: FairShares[str] = FairShares()
    shares.join("gone")
    shares.charge_ride("gone", 5.0)
    shares.leave("gone")
    assert shares.take_turn() is None

    assert not shares._ridden


def test_whoever_left_pays_for_its_last_work_and_is_then_forgotten() -> None:
    shares: FairShares[str] = FairShares()
    shares.join("gone")
    shares.join("here")
    assert shares.take_turn() == "gone"
    shares.leave("gone")
    shares.charge("gone", 5.0)

    for _ in range(3):
        assert shares.take_turn() == "here"
        shares.charge("here", 5.0)
    shares.charge("gone", 5.0)  # unknown by now: no matter

    assert shares._used.keys() == {"here"}


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcdef"),
            st.sampled_from(["join", "leave", "serve"]),
            st.integers(min_value=1, max_value=9),
        ),
        max_size=200,
    ),
    st.sampled_from([0.0, 7.0]),
)
def test_the_next_is_always_one_of_the_least_of_those_with_work(
    steps: list[tuple[str, str, int]], quantum: float
) -> None:
    shares: FairShares[str] = FairShares(quantum=quantum)
    working: set[str] = set()

    for key, step, tokens in steps:
        if step == "join" and key not in working:
            shares.join(key)
            working.add(key)
        elif step == "leave":
            shares.leave(key)
            working.discard(key)
        chosen = shares.take_turn()
        assert (chosen is None) == (not working)
        if chosen is not None:
            least = min(shares._used[other] for other in working)
            assert shares._used[chosen] == least or shares._used[chosen] - least < quantum
            assert shares.may_ride(chosen, most=quantum)
            shares.charge(chosen, float(tokens))
    assert len(shares._order) == len(shares._used)


def test_those_who_come_once_are_forgotten_and_those_who_work_are_not() -> None:
    shares: FairShares[int] = FairShares()
    shares.join(-1)
    shares.charge(-1, 5.0)
    for key in range(10 * MOST_KNOWN):
        shares.join(key)
        assert shares.take_turn() == key
        shares.charge(key, 10.0)
        shares.leave(key)

    assert len(shares) <= MOST_KNOWN + 5
    assert shares.take_turn() == -1
