"""Outcomes: the one terminal answer of a request, as a CloudEvent on `cortex.results`.

The first record with an outcome id in its partition is the outcome. Of later ones with the same id
only a `result` replaces an earlier `expired` or `dead_letter`; the others are repetitions of a
delivery and are ignored. docs/operations/one-outcome.md says how to read them.
"""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from schemas.contract import Count, Message


class OutcomeKind(StrEnum):
    """How a request ended."""

    RESULT = "result"
    REJECTED = "rejected"
    EXPIRED = "expired"
    DEAD_LETTER = "dead_letter"

    @property
    def type(self) -> str:
        """The CloudEvents type of such an outcome."""
        return f"cortex.outcome.{self.value}.v1"


class OutcomeError(Message):
    """Why there is no output."""

    code: str = Field(description="Stable identifier; docs/reference/errors.md lists them.")
    message: str = Field(description="What to change, for a person.")
    field: str | None = Field(description="Path of the offending input, as data.texts[3].")
    retryable: bool = Field(description="Whether the same request may succeed later.")


class ModelIdentity(Message):
    """Which model answered. The digest covers every file of the version's folder."""

    name: str
    version: str
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    batch_invariant: bool = Field(
        False,  # noqa: FBT003 (pydantic's default)
        description="Whether the answer is the same whatever other texts ran beside it.",
    )


class EmbedOutput(Message):
    """One vector per text, in input order."""

    encoding_format: Literal["base64", "float"]
    dims: Count
    vectors: list[str] | list[list[float]] = Field(
        description="base64: little-endian float32, `dims` of them; float: JSON numbers."
    )
    tokens: list[Count] = Field(description="Tokens that ran, special tokens included.")
    truncated: list[bool] = Field(description="Whether the text was longer than the model reads.")


class LabelScore(Message):
    """How well a label fits, from 0 to 1."""

    label: str
    score: float


class ClassifyOutput(Message):
    """One list per text, in input order, best label first."""

    classifications: list[list[LabelScore]]
    tokens: list[Count] = Field(description="Tokens that ran, special tokens included.")
    truncated: list[bool] = Field(description="Whether the text was longer than the model reads.")


class OutcomeData(Message):
    """The answer itself."""

    request_id: str | None = Field(description="Null when the request's id could not be read.")
    request_type: str | None
    output: EmbedOutput | ClassifyOutput | None
    error: OutcomeError | None
    model: ModelIdentity | None
    timings_ms: dict[str, float] = Field(description="By stage, and `queue` and `total`.")
    attempt: Count
    cache: Literal["hit", "miss"] | None
    replay_id: str | None


class Outcome(Message):
    """The CloudEvent on `cortex.results`.

    The record's key is the request id, or the outcome id where no request id could be read.
    """

    specversion: Literal["1.0"]
    id: str = Field(pattern=r"^[0-9a-f]{32}$", description="The outcome id.")
    source: Literal["//cortex-stream"]
    type: Literal[
        "cortex.outcome.result.v1",
        "cortex.outcome.rejected.v1",
        "cortex.outcome.expired.v1",
        "cortex.outcome.dead_letter.v1",
    ]
    time: str = Field(description="RFC 3339, UTC.")
    subject: str | None = Field(None, description="The request id; absent when unreadable.")
    datacontenttype: Literal["application/json"]
    traceparent: str | None = None
    data: OutcomeData
