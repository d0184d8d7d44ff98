"""Proves, with numbers, that a graph computes what its original computes, before it is installed.

ONNX Runtime rewrites graphs as it opens them, and some rewritings are wrong: a graph that is right on
paper can give other numbers. So every graph of our own making is run.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from cortex_stream.errors import ModelLoadFailed

Precision = Literal["fp32", "fp16", "int8"]
Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]

TEXTS: Final = (
    "The quick brown fox jumps over the lazy dog.",
    "Payment failed twice; please check the card on file before Friday, 3 May.",
    "ok",
)
"""What graphs are proven with: of different lengths, so that the shorter ones are padded."""
_LEAST_COSINE: Final = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.95}
"""To the original in float32, over all numbers of a text. A wrongly fused int8 graph has 0.6."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids and attention mask, each of shape `(rows, longest)`, padded at the end."""

    ids: Ids
    mask: Ids


def answers(path: Path, batch: Batch, *, output: str) -> list[Floats]:
    """Return what a graph says about each row alone, unpadded. Blocks for tenths of a second."""
    session = _session(path)
    return [_run(session, row, output)[0] for row in _rows(batch)]


def prove(
    path: Path, batch: Batch, wanted: list[Floats], *, output: str, precision: Precision
) -> None:
    """Compare a graph's answers, alone and together, with those of its original.

    Raises:
        ModelLoadFailed: they are too far apart, or int8 answers depend on their company.
    """
    session = _session(path)
    together = _run(session, batch, output)
    for index, (row, expected) in enumerate(zip(_rows(batch), wanted, strict=True)):
        alone = _run(session, row, output)[0]
        # Hidden states have a place for each token, padding behind; logits have none.
        real = slice(row.ids.shape[1] if alone.ndim > 1 else None)
        for got in (alone, together[index][real]):
            cosine = _cosine(got, expected)
            if not cosine >= _LEAST_COSINE[precision]:  # also when it is NaN
                raise ModelLoadFailed(
                    f"proving the graph: its cosine to the original is {cosine:.4f}, in {precision}"
                    f" at least {_LEAST_COSINE[precision]} is wanted"
                )
        if precision == "int8" and not np.array_equal(alone, together[index][real]):
            raise ModelLoadFailed("proving the graph: its answers depend on their company")


def _session(path: Path) -> Any:
    try:
        runtime = importlib.import_module("cortex_stream.inference.runtime")
        return runtime.onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes share no parent below Exception
        raise ModelLoadFailed(f"proving {path}: ONNX Runtime cannot open it: {error}") from error


def _rows(batch: Batch) -> list[Batch]:
    return [
        Batch(ids[None, :length], mask[None, :length])
        for ids, mask, length in zip(batch.ids, batch.mask, batch.mask.sum(axis=1), strict=True)
    ]


def _run(session: Any, batch: Batch, output: str) -> Floats:
    inputs = {
        "input_ids": batch.ids,
        "attention_mask": batch.mask,
        "token_type_ids": np.zeros_like(batch.ids),
    }
    feeds = {value.name: inputs[value.name] for value in session.get_inputs()}
    found: Floats = session.run([output], feeds)[0]
    return found


def _cosine(left: Floats, right: Floats) -> float:
    one, other = left.astype(np.float64), right.astype(np.float64)
    return float((one * other).sum() / (np.linalg.norm(one) * np.linalg.norm(other)))
