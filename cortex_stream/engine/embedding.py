"""The embedding stage: texts to unit vectors."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from cortex_stream.clock import Clock
from cortex_stream.engine.models import ServedModels
from cortex_stream.engine.stage import Matrix, Progress
from cortex_stream.errors import InvalidField
from cortex_stream.routing.request import WorkItem
from cortex_stream.routing.route import StageName
from schemas.requests import ClassifyData, EmbedData


class EmbeddingStage:
    """Embeds a request's texts, and the labels of a zero-shot classification with them."""

    name = StageName.EMBEDDING

    def __init__(self, models: ServedModels, clock: Clock) -> None:
        self._models = models
        self._clock = clock

    async def run(self, item: WorkItem, so_far: Progress) -> Progress:
        """Add the vectors, and for an embed request the output."""
        data = item.request.data
        labels = _labels(data, item.route.model)
        input_type = data.input_type if isinstance(data, EmbedData) else None
        model = self._models.running(item.route.model)
        began_s = self._clock.monotonic_s()
        answers = await model.run(
            [*data.texts, *labels],
            input_type=input_type,
            lane=item.lane,
            tenant=item.request.tenant,
            deadline=item.deadline,
        )
        spent_s = self._clock.monotonic_s() - began_s - answers.queue_s
        texts = len(data.texts)
        vectors = answers.matrix[:texts]
        tokens, truncated = answers.tokens[:texts], answers.truncated[:texts]
        output = None
        if isinstance(data, EmbedData):
            output = _output(data, vectors, tokens, truncated)
        return Progress(
            vectors=vectors,
            label_vectors=answers.matrix[texts:] if labels else None,
            tokens=tokens,
            truncated=truncated,
            output=output,
            model=model.identity,
            timings_ms={
                **so_far.timings_ms,
                "queue": round(answers.queue_s * 1000, 3),
                "embedding": round(spent_s * 1000, 3),
            },
        )


def vector_bytes(vectors: Matrix) -> list[bytes]:
    """Return each vector as little-endian float32 bytes."""
    return [row.tobytes() for row in vectors.astype("<f4", copy=False)]


def _labels(data: EmbedData | ClassifyData, model: str) -> list[str]:
    if isinstance(data, EmbedData):
        return []
    if data.labels is None:
        raise InvalidField(
            f"data.labels: Field required, since {model} is an embedding model and has no labels"
            " of its own",
            field="data.labels",
        )
    return data.labels


def _output(
    data: EmbedData, vectors: Matrix, tokens: Sequence[int], truncated: Sequence[bool]
) -> dict[str, Any]:
    encoded: list[str] | list[np.ndarray[Any, Any]]
    if data.encoding_format == "base64":
        encoded = [base64.b64encode(vector).decode() for vector in vector_bytes(vectors)]
    else:
        encoded = [np.ascontiguousarray(vector) for vector in vectors]
    return {
        "encoding_format": data.encoding_format,
        "dims": int(vectors.shape[1]),
        "vectors": encoded,
        "tokens": tokens,
        "truncated": truncated,
    }
