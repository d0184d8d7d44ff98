import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cortex_stream.scheduling.latency_model import HALF_LIFE, MIN_OBSERVATIONS, LatencyModel

sizes = st.lists(st.integers(min_value=1, max_value=8192), min_size=MIN_OBSERVATIONS, max_size=100)
seconds = st.floats(min_value=0.0, max_value=1.0)


def learned(tokens: list[int], *, base_s: float, per_token_s: float) -> LatencyModel:
    model = LatencyModel()
    for padded_tokens in tokens:
        spent_s = base_s + per_token_s * padded_tokens
        model.observe(padded_tokens, spent_s=spent_s)
    return model


def test_nothing_is_predicted_from_too_few_batches() -> None:
    model = learned([100] * (MIN_OBSERVATIONS - 1), base_s=0.0, per_token_s=1e-4)
    assert model.predict_s(100) is None
    assert LatencyModel().line() == (0.0, 0.0)


@given(sizes, seconds, st.floats(min_value=0.0, max_value=1e-3))
def test_a_line_is_found_again(tokens: list[int], base_s: float, per_token_s: float) -> None:
    assume(max(tokens) > 2 * min(tokens))
    model = learned(tokens, base_s=base_s, per_token_s=per_token_s)

    predicted_s = model.predict_s(1000)

    assert predicted_s == pytest.approx(base_s + per_token_s * 1000, rel=1e-3, abs=1e-6)


def test_batches_of_one_size_are_predicted_as_they_were() -> None:
    model = learned([256] * 50, base_s=0.01, per_token_s=1e-4)

    assert model.predict_s(256) == pytest.approx(0.01 + 0.0256)


@given(st.lists(st.tuples(st.integers(1, 4096), seconds), min_size=MIN_OBSERVATIONS, max_size=60))
def test_a_prediction_is_never_negative(batches: list[tuple[int, float]]) -> None:
    model = LatencyModel()
    for tokens, spent_s in batches:
        model.observe(tokens, spent_s=spent_s)

    base_s, per_token_s = model.line()

    assert base_s >= 0
    assert per_token_s >= 0
    assert model.predict_s(1) is not None


def test_a_model_that_is_faster_with_more_tokens_is_taken_for_constant() -> None:
    model = LatencyModel()
    for number in range(MIN_OBSERVATIONS):
        model.observe(10 + number, spent_s=1.0 - number * 0.01)

    base_s, per_token_s = model.line()

    assert per_token_s == 0
    assert base_s == pytest.approx(0.905, rel=0.01)


def test_a_machine_that_gets_slower_is_followed() -> None:
    model = learned([64, 128, 256] * HALF_LIFE, base_s=0.0, per_token_s=1e-4)
    for _ in range(HALF_LIFE):
        for tokens in (64, 128, 256):
            model.observe(tokens, spent_s=tokens * 3e-4)

    # three half-lives: the old batches weigh 1 against 8
    assert model.predict_s(100) == pytest.approx(100 * (3e-4 * 8 + 1e-4) / 9)


def test_one_batch_under_which_the_process_was_stopped_tells_little() -> None:
    model = learned([256] * 50, base_s=0.0, per_token_s=1e-4)

    model.observe(256, spent_s=60.0)

    assert model.predict_s(256) == pytest.approx(0.0256, rel=0.25)
