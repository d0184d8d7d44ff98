"""Hand-overs: work items on their way between workers that host different stages.

The record's key and value are those of the source record, byte for byte, and so are its headers,
after which `HANDOVER` comes and, once there are vectors, `VECTORS`. A reader takes those two from
the end: whatever a client has put before them stays its own.
"""

from typing import Final, Literal

from pydantic import Field, FiniteFloat

from schemas.contract import Count, Message
from schemas.outcomes import ModelIdentity

HANDOVER: Final = "cortex_handover"
"""The JSON of a `Handover`."""
VECTORS: Final = "cortex_handover-vectors"
"""Little-endian float32, `dims` for each text, then `dims` for each label."""


class HandedProgress(Message):
    """What the stages so far have found."""

    dims: int = Field(ge=1)
    labels: Count = Field(description="Rows of the vectors, from the end, that are labels.")
    tokens: list[Count]
    truncated: list[bool]
    model: ModelIdentity
    timings_ms: dict[str, FiniteFloat]


class Handover(Message):
    """Where the request came from, how far it is, and what is left of its deadline."""

    version: Literal[1]
    stage: str = Field(description="The stage that it is handed to.")
    topic: str = Field(description="The source record's topic, as the cluster names it.")
    partition: Count
    offset: Count
    timestamp_ms: int
    attempt: int = Field(ge=1)
    spent_ms: FiniteFloat = Field(ge=0, description="From the source record's poll on.")
    left_ms: FiniteFloat | None = Field(
        description="Of the deadline, at the hand-over: clocks of two processes do not compare."
    )
    progress: HandedProgress | None
