"""The inference stage of classify requests: numbers to labels."""

from dataclasses import replace

from cortex_stream.clock import Clock
from cortex_stream.engine.models import ServedModel, ServedModels
from cortex_stream.engine.stage import Progress
from cortex_stream.errors import InvalidField, InvariantError
from cortex_stream.inference.classification import label_scores
from cortex_stream.inference.zero_shot import zero_shot_scores
from cortex_stream.routing.request import WorkItem
from cortex_stream.routing.route import StageName
from schemas.requests import ClassifyData


class ClassificationStage:
    """Scores labels: by similarity to their vectors, or by a model trained for them."""

    name = StageName.INFERENCE

    def __init__(self, models: ServedModels, clock: Clock) -> None:
        self._models = models
        self._clock = clock

    async def run(self, item: WorkItem, so_far: Progress) -> Progress:
        """Add the output, best label first for every text."""
        data = item.request.data
        if not isinstance(data, ClassifyData):
            raise InvariantError("classifying a request that is none; this is a bug")
        if self._models.find(item.route.model).task == "embedding":
            return self._compare(data, so_far)
        model = self._models.running(item.route.model)
        return await self._classify(item, data, model, so_far)

    def _compare(self, data: ClassifyData, so_far: Progress) -> Progress:
        if so_far.vectors is None or so_far.label_vectors is None or data.labels is None:
            raise InvariantError("comparing before embedding; this is a bug in cortex-stream")
        began_s = self._clock.monotonic_s()
        ranked = zero_shot_scores(
            so_far.vectors, so_far.label_vectors, data.labels, multi_label=data.multi_label
        )
        spent_s = self._clock.monotonic_s() - began_s
        return _with_output(so_far, ranked, spent_s)

    async def _classify(
        self, item: WorkItem, data: ClassifyData, model: ServedModel, so_far: Progress
    ) -> Progress:
        known = model.loaded.labels
        for index, label in enumerate(data.labels or ()):
            if label not in known:
                raise InvalidField(
                    f"data.labels[{index}]: {model.reference} was trained for {', '.join(known)};"
                    " leave labels out, or name an embedding model",
                    field=f"data.labels[{index}]",
                )
        began_s = self._clock.monotonic_s()
        answers = await model.run(
            data.texts,
            input_type=None,
            lane=item.lane,
            tenant=item.request.tenant,
            deadline=item.deadline,
        )
        spent_s = self._clock.monotonic_s() - began_s - answers.queue_s
        ranked = label_scores(answers.matrix, known, multi_label=data.multi_label)
        if data.labels is not None:
            wanted = set(data.labels)
            ranked = [[pair for pair in text if pair[0] in wanted] for text in ranked]
        progress = replace(
            so_far,
            tokens=answers.tokens,
            truncated=answers.truncated,
            model=model.identity,
            timings_ms={**so_far.timings_ms, "queue": round(answers.queue_s * 1000, 3)},
        )
        return _with_output(progress, ranked, spent_s)


def _with_output(
    so_far: Progress, ranked: list[list[tuple[str, float]]], spent_s: float
) -> Progress:
    return replace(
        so_far,
        output={
            "classifications": [
                [{"label": label, "score": round(score, 6)} for label, score in text]
                for text in ranked
            ],
            "tokens": so_far.tokens,
            "truncated": so_far.truncated,
        },
        timings_ms={**so_far.timings_ms, "inference": round(spent_s * 1000, 3)},
    )
