"""The gate: every figure there should be beside its bound, and what `--gate` may say."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.errors import OperatorError
from cortex_stream.replay.gate import BOUNDS, decide_gate, parse_gate


def test_a_figure_that_is_not_asked_for_is_not_judged() -> None:
    checks = decide_gate({"compared": 100.0, "flips": 0.5}, parse_gate(()))

    assert [(check.name, check.passed) for check in checks] == [
        ("compared", True),
        ("flips", False),
    ]
    assert str(checks[1]) == "flips 0.5, wanted at most 0.02"


def test_a_figure_that_should_be_there_and_is_not_fails() -> None:
    (check,) = decide_gate({"mean-cosine": None}, parse_gate(["mean-cosine=-1"]))

    assert not check.passed
    assert str(check) == "mean-cosine none, wanted at least -1"


@given(st.sampled_from(list(BOUNDS)), st.floats(-2, 2), st.floats(-2, 2))
def test_a_bound_holds_on_its_side_and_at_itself(name: str, measured: float, bound: float) -> None:
    (check,) = decide_gate({name: measured}, parse_gate([f"{name}={bound!r}"]))

    better = measured - bound if check.side == "at least" else bound - measured
    assert check.passed == (better >= 0)


@pytest.mark.parametrize(
    "text", ["flips", "flips=", "flips=few", "luck=1", "=1", f"flips={math.nan}"]
)
def test_a_gate_that_names_no_figure_or_no_number_is_refused(text: str) -> None:
    with pytest.raises(OperatorError, match="wanted name=number"):
        parse_gate([text])
