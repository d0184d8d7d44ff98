"""An outcome as a report needs it. Pure."""

import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cortex_stream.replay.compare import Matrix
from schemas.outcomes import OutcomeKind

_KIND_BY_TYPE: Final = {kind.type: kind for kind in OutcomeKind}
_STAGES: Final = ("embedding", "inference")


@dataclass(frozen=True, slots=True)
class Answer:
    """One outcome.

    Attributes:
        code: of the error; None for a result.
        model: `name@version`; None where none answered.
        vectors: shape (texts, dims), of an embedding.
        labels: the best label of each text, of a classification.
        total_ms: from the poll of the request to its end.
        model_ms: the time in the stages that run models, without waiting for a runner.
    """

    kind: OutcomeKind
    code: str | None
    model: str | None
    vectors: Matrix | None
    labels: tuple[str, ...] | None
    total_ms: float
    model_ms: float
    tokens: int

    @property
    def answered(self) -> bool:
        """Whether there is an answer, and not a reason why there is none."""
        return self.kind is OutcomeKind.RESULT


def kind_or_none(outcome: Mapping[str, Any]) -> OutcomeKind | None:
    """Return how a parsed outcome ended; None when it is of a kind that this release knows not."""
    return _KIND_BY_TYPE.get(str(outcome.get("type")))


def read_answer(outcome: Mapping[str, Any], kind: OutcomeKind) -> Answer:
    """Return what a parsed outcome says."""
    data = outcome["data"]
    output, model, error = data["output"] or {}, data["model"], data["error"]
    timings = data["timings_ms"]
    return Answer(
        kind=kind,
        code=None if error is None else error["code"],
        model=None if model is None else f"{model['name']}@{model['version']}",
        vectors=_vectors(output),
        labels=_labels(output),
        total_ms=float(timings.get("total", 0.0)),
        model_ms=float(sum(timings.get(stage, 0.0) for stage in _STAGES)),
        tokens=sum(output.get("tokens", ())),
    )


def take_first(found: dict[str, Answer], identity: str, answer: Answer) -> None:
    """Keep an answer unless there is one of that id; a result takes the place of anything else."""
    before = found.get(identity)
    if before is None or (answer.answered and not before.answered):
        found[identity] = answer


def _vectors(output: Mapping[str, Any]) -> Matrix | None:
    vectors = output.get("vectors")
    if not vectors:
        return None
    if output.get("encoding_format") == "float":
        return np.asarray(vectors, np.float32)
    joined = b"".join(binascii.a2b_base64(vector) for vector in vectors)
    return np.frombuffer(joined, "<f4").reshape(len(vectors), -1)


def _labels(output: Mapping[str, Any]) -> tuple[str, ...] | None:
    found = output.get("classifications")
    return None if found is None else tuple(scores[0]["label"] for scores in found)
