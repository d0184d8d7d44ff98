"""Labels that no model was trained for, scored by the likeness of vectors. Pure.

One label of many: softmax(cos(text, label) / T), the probability that contrastive training gives to
the right partner among the candidates (InfoNCE: van den Oord et al., 2018, arXiv 1807.03748; used
for zero-shot classification by CLIP: Radford et al., 2021, arXiv 2103.00020). T is 0.05, the
temperature (scale 20) with which the sentence-transformers models, all-MiniLM-L6-v2 among them, were
trained.

Many labels: max(0, cos(text, label)), each on its own. There is nothing to compare a lone label with,
so this is a likeness and no probability: compare it with a threshold found on your own texts.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from cortex_stream.inference import tensors
from cortex_stream.inference.classification import ranked
from cortex_stream.inference.tensors import FloatRows

TEMPERATURE: Final = np.float32(0.05)


def zero_shot_scores(
    texts: FloatRows, label_vectors: FloatRows, labels: Sequence[str], *, multi_label: bool
) -> list[list[tuple[str, float]]]:
    """Return, for each text, every label with its score from 0 to 1, best first.

    Args:
        texts: shape `(texts, dims)`; of length one or not.
        label_vectors: shape `(len(labels), dims)`, of the same model.
        labels: named as in the answer.
        multi_label: each label on its own, else shares that sum to one.
    """
    # einsum, not matmul: BLAS picks another kernel for another count of texts, so the last bits
    # of a text's scores would depend on its company.
    cosines = np.einsum("td,ld->tl", tensors.normalise(texts), tensors.normalise(label_vectors))
    scores = np.clip(cosines, 0, 1) if multi_label else tensors.softmax(cosines / TEMPERATURE)
    return ranked(scores, labels)
