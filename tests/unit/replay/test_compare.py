"""The figures of a report, against what they mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.replay.compare import EDGES, Matrix, cosines, flips, overlap, spread


def vectors(rows: int, dims: int, seed: int) -> Matrix:
    return np.random.default_rng(seed).standard_normal((rows, dims)).astype(np.float32)


shapes = st.tuples(st.integers(1, 40), st.integers(1, 8), st.integers(0, 2**32))


@given(shapes, st.floats(0.01, 100))
def test_the_same_direction_has_cosine_one_whatever_its_length(
    shape: tuple[int, int, int], factor: float
) -> None:
    then = vectors(*shape)

    found = cosines(then, (then * np.float32(factor)).astype(np.float32))

    assert found is not None
    assert found.least == pytest.approx(1, abs=1e-6)


@given(shapes, st.integers(0, 2**32))
def test_figures_of_cosines_are_ordered_and_the_histogram_has_every_text(
    shape: tuple[int, int, int], seed: int
) -> None:
    rows, dims, _ = shape

    found = cosines(vectors(*shape), vectors(rows, dims, seed))

    assert found is not None
    assert -1 <= found.least <= found.p01 <= found.p50 <= 1
    assert sum(found.histogram) == found.texts == rows
    assert len(found.histogram) == len(EDGES) - 1


def test_opposite_and_zero_vectors_have_cosines_minus_one_and_zero() -> None:
    then = np.array([[1, 0], [0, 0]], np.float32)
    now = np.array([[-2, 0], [1, 0]], np.float32)

    found = cosines(then, now)

    assert found is not None
    assert (found.least, found.mean) == (-1.0, -0.5)


def test_of_no_texts_there_is_nothing_to_say() -> None:
    none = np.empty((0, 4), np.float32)

    assert cosines(none, none) is None
    assert overlap(none, none) is None
    assert overlap(vectors(1, 4, 0), vectors(1, 4, 0)) is None
    assert spread([]) is None


@given(shapes, st.integers(0, 2**32))
def test_turning_every_vector_alike_keeps_all_neighbours(
    shape: tuple[int, int, int], seed: int
) -> None:
    rows, dims, first = shape
    then = vectors(rows + 1, dims, first)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((dims, dims)))

    found = overlap(then, (then @ turn).astype(np.float32))

    assert found is not None
    assert found.mean >= 0.9  # but for neighbours that are equally near to six places


@given(shapes, st.integers(1, 6), st.integers(0, 2**32))
def test_an_overlap_is_what_counting_neighbour_by_neighbour_gives(
    shape: tuple[int, int, int], dims_now: int, seed: int
) -> None:
    rows, dims, first = shape
    then, now = vectors(rows + 1, dims, first), vectors(rows + 1, dims_now, seed)

    found = overlap(then, now, neighbours=3)

    assert found is not None
    assert found.neighbours == min(3, rows)
    assert found.mean == pytest.approx(counted(then, now, found.neighbours))
    assert 0 <= found.p01 <= 1


def counted(then: Matrix, now: Matrix, neighbours: int) -> float:
    def nearest(all_of: Matrix, row: int) -> set[int]:
        def near(other: int) -> float:
            a, b = all_of[row].astype(np.float64), all_of[other].astype(np.float64)
            return round(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))), 6)

        others = [other for other in range(len(all_of)) if other != row]
        return set(sorted(others, key=lambda other: (-near(other), other))[:neighbours])

    shares = [len(nearest(then, r) & nearest(now, r)) / neighbours for r in range(len(then))]
    return sum(shares) / len(shares)


def test_more_texts_than_are_multiplied_at_once_are_compared_exactly() -> None:
    then = vectors(600, 16, 1)

    found = overlap(then, then)

    assert found is not None
    assert (found.texts, found.neighbours, found.mean, found.p01) == (600, 10, 1.0, 1.0)


def test_flips_are_counted_by_what_they_were_and_became() -> None:
    found = flips([("a", "a"), ("a", "b"), ("a", "b"), ("b", "a")], most_moves=1)

    assert (found.texts, found.flipped, found.share) == (4, 3, 0.75)
    assert found.moves == (("a", "b", 2),)


def test_no_texts_have_no_flips() -> None:
    assert flips([]).share == 0.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1))
def test_every_flip_is_in_the_table(labels: list[tuple[str, str]]) -> None:
    found = flips(labels)

    assert sum(texts for _, _, texts in found.moves) == found.flipped
    assert found.share == sum(then != now for then, now in labels) / len(labels)


def test_a_spread_has_the_middle_and_the_far_end() -> None:
    found = spread([float(ms) for ms in range(101)])

    assert found is not None
    assert (found.count, found.mean, found.p50, found.p99) == (101, 50.0, 50.0, 99.0)
