"""Vectors for Lake: `lake.vector.v1` on `lake.vectors`, keyed by the request's subject."""

from typing import Literal

from pydantic import Field

from schemas.contract import Count, Message
from schemas.outcomes import ModelIdentity


class LakeVector(Message):
    """The vectors of one subject. A later record of the same subject replaces them all."""

    schema_version: Literal["lake.vector.v1"]
    subject: str
    request_id: str
    outcome_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    source: str
    tenant: str
    model: ModelIdentity
    dims: Count
    vectors: list[str] = Field(description="base64 of little-endian float32, one per text.")
    time: str = Field(description="RFC 3339, UTC.")
