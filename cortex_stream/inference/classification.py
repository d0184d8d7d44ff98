"""Logits of a classification model to scores of its labels. Pure."""

from collections.abc import Sequence

from cortex_stream.inference import tensors
from cortex_stream.inference.tensors import FloatRows


def label_scores(
    logits: FloatRows, labels: Sequence[str], *, multi_label: bool
) -> list[list[tuple[str, float]]]:
    """Return, for each text, every label with its score from 0 to 1, best first.

    Args:
        logits: shape `(texts, len(labels))`.
        labels: in the order of the logits.
        multi_label: each label on its own (sigmoid), else shares that sum to one (softmax).
    """
    return ranked(tensors.sigmoid(logits) if multi_label else tensors.softmax(logits), labels)


def ranked(scores: FloatRows, labels: Sequence[str]) -> list[list[tuple[str, float]]]:
    """Return the labels of each row with their scores, best first; ties keep the labels' order."""
    return [
        sorted(zip(labels, row, strict=True), key=lambda pair: -pair[1]) for row in scores.tolist()
    ]
