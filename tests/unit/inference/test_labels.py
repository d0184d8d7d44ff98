import numpy as np
import pytest

from cortex_stream.inference.classification import label_scores
from cortex_stream.inference.zero_shot import TEMPERATURE, zero_shot_scores

LABELS = ("joy", "anger", "fear")


def test_logits_become_shares_best_first() -> None:
    [scores] = label_scores(np.log([[1, 7, 2]]).astype(np.float32), LABELS, multi_label=False)

    assert [label for label, _ in scores] == ["anger", "fear", "joy"]
    assert [score for _, score in scores] == pytest.approx([0.7, 0.2, 0.1], abs=1e-6)


def test_with_many_labels_each_logit_is_scored_on_its_own() -> None:
    logits = np.array([[0, 1000, -1000], [3, 3, 3]], np.float32)

    first, second = label_scores(logits, LABELS, multi_label=True)

    assert first == [("anger", 1.0), ("joy", 0.5), ("fear", 0.0)]
    assert [label for label, _ in second] == list(LABELS)  # a tie keeps their order


def test_zero_shot_shares_are_the_softmax_of_cosines_over_the_temperature() -> None:
    texts = np.array([[2, 0]], np.float32)
    labels = np.array([[0.8, 0.6], [3, 0], [0, 1]], np.float32)  # cosines 0.8, 1, 0

    [scores] = zero_shot_scores(texts, labels, LABELS, multi_label=False)

    powers = np.exp(np.array([1, 0.8, 0]) / float(TEMPERATURE))
    assert [label for label, _ in scores] == ["anger", "joy", "fear"]
    assert [score for _, score in scores] == pytest.approx((powers / powers.sum()).tolist())


def test_zero_shot_with_many_labels_is_the_cosine_and_never_below_zero() -> None:
    texts = np.array([[1, 0]], np.float32)
    labels = np.array([[0.8, 0.6], [1, 0], [-1, 0]], np.float32)

    [scores] = zero_shot_scores(texts, labels, LABELS, multi_label=True)

    assert [label for label, _ in scores] == ["anger", "joy", "fear"]
    assert [score for _, score in scores] == pytest.approx([1, 0.8, 0])


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_text_has_the_same_scores_in_any_company(multi_label: bool) -> None:  # noqa: FBT001 (pytest)
    rng = np.random.default_rng(3)
    texts = rng.standard_normal((17, 384), np.float32)
    labels = rng.standard_normal((3, 384), np.float32)

    together = zero_shot_scores(texts, labels, LABELS, multi_label=multi_label)

    alone = [zero_shot_scores(t[None], labels, LABELS, multi_label=multi_label)[0] for t in texts]
    assert together == alone


def test_one_label_of_one_is_certain() -> None:
    vectors = np.ones((1, 4), np.float32)

    assert zero_shot_scores(vectors, vectors, ["only"], multi_label=False) == [[("only", 1.0)]]
