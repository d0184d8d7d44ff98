"""The one contract of every stage, and what stages pass on to one another."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cortex_stream.routing.request import WorkItem
from cortex_stream.routing.route import StageName
from cortex_stream.values import value
from schemas.outcomes import ModelIdentity

Matrix = npt.NDArray[np.float32]


@value()
class Progress:
    """What the stages of a route have found so far.

    Attributes:
        vectors: unit vectors of the texts, float32, shape (texts, dims).
        label_vectors: unit vectors of the labels, float32, shape (labels, dims).
        tokens: tokens that ran for each text, special tokens included.
        truncated: whether each text was longer than the model reads.
        output: the answer as it goes on the wire; the last stage of a route sets it.
        model: which model version answered.
        timings_ms: time spent, by stage, and `queue`: waiting for a runner.
    """

    vectors: Matrix | None = None
    label_vectors: Matrix | None = None
    tokens: tuple[int, ...] = ()
    truncated: tuple[bool, ...] = ()
    output: Mapping[str, Any] | None = None
    model: ModelIdentity | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)


class Stage(Protocol):
    """One step of a route. Knows nothing of Kafka, of retries, or of the stages around it."""

    @property
    def name(self) -> StageName:
        """Which step of a route this is."""
        ...

    async def run(self, item: WorkItem, so_far: Progress) -> Progress:
        """Return `so_far` and what this stage adds to it.

        May run more than once for one item, since a failed try is repeated from the first stage.

        Raises:
            CortexError: the item cannot be answered by this try; the class decides what follows.
        """
        ...
