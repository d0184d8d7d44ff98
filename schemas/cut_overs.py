"""Cut-overs: which version the name of a model means from now on, for every worker."""

from typing import Literal

from pydantic import Field

from schemas.contract import Identifier, Message


class CutOver(Message):
    """One decision on a name, on `cortex.models`; the record's key is the name.

    The newest record of a name counts; one without a value takes the decision back.
    """

    schema_version: Literal["cortex.cut_over.v1"]
    name: Identifier = Field(description="What requests may name without a version: `minilm`.")
    version: Identifier = Field(description="What the name means from now on: `2`.")
    at: str = Field(description="RFC 3339, UTC.")
    principal: str = Field(description="Who decided: `user@host`.")
    replay_id: str | None = Field(
        description="The replay whose report passed its gate; null: switched by hand."
    )
