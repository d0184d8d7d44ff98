import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.loadtest.corpus import short_texts
from cortex_stream.loadtest.load import LoadRequest
from cortex_stream.loadtest.traffic import Even, Poisson, Traffic, arrivals, requests
from schemas.priority import Lane
from schemas.requests import CLASSIFY, EMBED, ClassifyRequest, EmbedRequest

RATES = st.floats(1, 1000)
SEEDS = st.integers(0, 2**32)


def first(traffic: Traffic, count: int, *, seed: int = 1) -> list[LoadRequest]:
    return list(itertools.islice(requests(traffic, run="run", seed=seed), count))


def value_of(request: LoadRequest) -> Mapping[str, Any]:
    value: Mapping[str, Any] = orjson.loads(request.value)
    return value


@given(RATES, SEEDS, st.floats(0, 5), st.floats(0, 5))
def test_moments_ascend_within_their_bounds_and_depend_on_the_seed_alone(
    rate_per_s: float, seed: int, begins_s: float, lasts_s: float
) -> None:
    ends_s = begins_s + lasts_s

    moments = list(arrivals(Poisson(rate_per_s), begins_s=begins_s, ends_s=ends_s, seed=seed))

    assert moments == sorted(moments)
    assert all(begins_s <= moment < ends_s for moment in moments)
    assert moments == list(
        arrivals(Poisson(rate_per_s), begins_s=begins_s, ends_s=ends_s, seed=seed)
    )


def test_poisson_arrivals_have_the_rate_and_the_spread_of_independent_callers() -> None:
    moments = list(arrivals(Poisson(100), begins_s=0, ends_s=1000, seed=3))

    per_second = Counter(int(moment) for moment in moments)
    counts = [per_second[second] for second in range(1000)]
    mean = sum(counts) / len(counts)
    variance = sum((count - mean) ** 2 for count in counts) / len(counts)
    assert 98 < mean < 102  # 100 ± 6 standard errors of 0.32
    assert 0.8 < variance / mean < 1.2  # 1 for a Poisson process, 0 for a metronome


def test_even_arrivals_have_equal_distances() -> None:
    moments = list(arrivals(Even(10), begins_s=2, ends_s=2.55, seed=1))

    assert [round(moment, 6) for moment in moments] == [2.1, 2.2, 2.3, 2.4, 2.5]


def test_equal_seeds_give_equal_requests_and_others_give_others() -> None:
    traffic = Traffic("t", Poisson(1), lanes={Lane.HIGH: 1, Lane.LOW: 1})

    assert first(traffic, 50) == first(traffic, 50)
    assert first(traffic, 50) != first(traffic, 50, seed=2)


def test_every_part_of_a_mix_has_its_share() -> None:
    traffic = Traffic(
        "mixed",
        Poisson(1),
        lanes={Lane.CRITICAL: 1, Lane.LOW: 3},
        types={EMBED: 1, CLASSIFY: 1},
        lengths={"short": 1, "paragraphs": 1},
        deadlines_ms={None: 1, 500: 1},
        tenants={"a": 1, "b": 9},
    )

    load = first(traffic, 2000)

    values = [value_of(each) for each in load]
    assert 400 < sum(each.lane is Lane.CRITICAL for each in load) < 600
    assert 900 < sum(value["type"] == CLASSIFY for value in values) < 1100
    assert 900 < sum(value.get("deadlinems") == 500 for value in values) < 1100
    assert 140 < sum(each.tenant == "a" for each in load) < 260
    assert all(value["tenant"] == each.tenant for value, each in zip(values, load, strict=True))
    short = set(short_texts())  # more than a third of the paragraphs are single sentences, too
    assert 500 < sum(value["data"]["texts"][0] not in short for value in values) < 800


def test_requests_are_what_the_contract_says() -> None:
    (embed,) = first(Traffic("e", Poisson(1)), 1)
    (classify,) = first(Traffic("c", Poisson(1), types={CLASSIFY: 1}), 1)

    assert EmbedRequest.model_validate_json(embed.value).data.texts
    assert ClassifyRequest.model_validate_json(classify.value).data.labels
    assert (embed.request_id, embed.traffic) == ("run-e-0", "e")
    assert not {"tenant", "deadlinems"} & value_of(embed).keys()


def test_no_text_comes_twice_however_long_it_goes_on() -> None:
    count = 2 * len(short_texts()) + 10

    load = first(Traffic("t", Poisson(1), lengths={"short": 1}), count)

    assert len({value_of(each)["data"]["texts"][0] for each in load}) == count
