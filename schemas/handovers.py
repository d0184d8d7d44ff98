"""Hand-overs: work items on their way from one worker to the next, or to their next attempt.

Written where stages are split, where a tenant's request is set back, where a request waits for a
retry, and where a replay or a redrive puts one back.

The record's key and value are those of the source record, byte for byte, and so are its headers,
after which `HANDOVER` comes and, once there are vectors, `VECTORS`. A reader takes those two from
the end: whatever a client has put before them stays its own.
"""

from typing import Final, Literal

from pydantic import Field, FiniteFloat

from schemas.contract import MAX_SAFE_INTEGER, Count, Message, UnixMs
from schemas.outcomes import ModelIdentity
from schemas.priority import Lane
from schemas.requests import ModelReference

HANDOVER: Final = "cortex_handover"
"""The JSON of a `Handover`."""
VECTORS: Final = "cortex_handover-vectors"
"""Little-endian float32, `dims` for each text, then `dims` for each label."""


class Reinjection(Message):
    """What a replay or a redrive says about a request that it puts back."""

    replay_id: str = Field(
        min_length=1, max_length=64, description="Gives the outcome an id of its own."
    )
    publish_to: Literal["results", "replays"] = Field(
        description="Where the outcome goes: to everybody, or to those who asked for the replay."
    )
    redrives: Count = Field(0, description="How often its dead letter was redriven, this one too.")
    model: ModelReference | None = Field(
        None, description="Answers in place of the one that the request names; a replay's choice."
    )


class Waiting(Message):
    """Why a request waits for its next attempt, and until when. Kept once it has waited."""

    retry: int = Field(
        ge=1, description="How often it has waited by then: the number of its topic."
    )
    lane: Lane = Field(description="Where it goes on: the retry topics hold those of every lane.")
    due_unix_ms: UnixMs = Field(description="Not before, on the clock of the worker that wrote it.")
    first_failed_unix_ms: UnixMs = Field(description="When its first attempt failed.")
    code: str = Field(description="Error code of the last attempt.")


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
    timestamp_ms: UnixMs
    attempt: int = Field(ge=1, le=MAX_SAFE_INTEGER)
    spent_ms: FiniteFloat = Field(ge=0, description="From the source record's poll on.")
    left_ms: FiniteFloat | None = Field(
        description="Of the deadline, at the hand-over: clocks of two processes do not compare."
    )
    progress: HandedProgress | None
    waiting: Waiting | None = Field(None, description="On the retry topics, and from then on.")
    reinjection: Reinjection | None = Field(
        None, description="Once a replay or a redrive has put the request back."
    )
