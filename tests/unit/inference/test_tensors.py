import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cortex_stream.inference import tensors

FINITE = st.floats(-1e4, 1e4, width=32)
ROWS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=FINITE)


def test_rows_are_padded_to_the_longest_with_zeros_that_the_mask_leaves_out() -> None:
    ids, mask = tensors.pad([np.array([5, 6, 7]), np.array([8])])

    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype == mask.dtype == np.int64


@given(st.lists(st.lists(st.integers(1, 2**40), min_size=1, max_size=9), min_size=1, max_size=9))
def test_padding_loses_nothing(rows: list[list[int]]) -> None:
    ids, mask = tensors.pad([np.array(row, np.int64) for row in rows])

    assert [line[keep == 1].tolist() for line, keep in zip(ids, mask, strict=True)] == rows


def test_the_mean_reads_real_tokens_only() -> None:
    hidden = np.array([[[1, 2], [3, 4], [np.nan, 9]], [[5, 6], [np.nan, 9], [9, 9]]], np.float32)

    assert tensors.pool_mean(hidden, [2, 1]).tolist() == [[2, 3], [5, 6]]


@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_a_mean_is_bit_equal_whatever_the_padding(length: int, padding: int, seed: int) -> None:
    hidden = np.random.default_rng(seed).standard_normal((1, length, 33), np.float32)
    padded = np.pad(hidden, ((0, 3), (0, padding), (0, 0)), constant_values=7)

    alone = tensors.pool_mean(hidden, [length])
    together = tensors.pool_mean(padded, [length, 1, 1, 1])[:1]

    assert np.array_equal(alone, together)


def test_half_precision_is_summed_in_single() -> None:
    hidden = np.full((1, 4096, 2), 40, np.float16)  # the sum, 163840, is no float16

    pooled = tensors.pool_mean(hidden, [4096])

    assert pooled.dtype == np.float32
    assert pooled.tolist() == [[40, 40]]


def test_cls_is_the_first_token() -> None:
    hidden = np.arange(12, dtype=np.float16).reshape(2, 3, 2)

    pooled = tensors.pool_cls(hidden)

    assert pooled.tolist() == [[0, 1], [6, 7]]
    assert pooled.dtype == np.float32


@given(ROWS)
def test_normalised_rows_have_length_one_or_are_zero(rows: tensors.FloatRows) -> None:
    lengths = np.linalg.norm(tensors.normalise(rows).astype(np.float64), axis=1)
    before = np.linalg.norm(rows.astype(np.float64), axis=1)

    assert lengths[before > 1e-6] == pytest.approx(1, abs=1e-5)
    assert not lengths[before == 0].any()


@given(ROWS)
def test_softmax_gives_shares_that_sum_to_one_in_the_same_order(rows: tensors.FloatRows) -> None:
    shares = tensors.softmax(rows)

    assert shares.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (shares >= 0).all()
    highest = np.take_along_axis(shares, rows.argmax(axis=1)[:, None], axis=1)[:, 0]
    assert np.array_equal(highest, shares.max(axis=1))


@given(ROWS)
def test_sigmoid_stays_between_zero_and_one_and_is_symmetric(rows: tensors.FloatRows) -> None:
    scores = tensors.sigmoid(rows)

    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores + tensors.sigmoid(-rows) == pytest.approx(1, abs=1e-6)
    assert tensors.sigmoid(np.zeros((1, 1), np.float32)) == 0.5
