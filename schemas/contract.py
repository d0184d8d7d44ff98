"""What every message model shares: frozen, strict, and nothing undeclared on our side."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_SAFE_INTEGER: Final = 2**53
"""Beyond it, JSON readers that use doubles (JavaScript, orjson past 64 bits) lose digits."""

Count = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
UnixMs = Annotated[int, Field(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER)]
Identifier = Annotated[
    str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")
]
"""One to 256 characters without control characters: ids, sources, subjects, tenants."""
NonEmptyText = Annotated[str, StringConstraints(min_length=1)]


class Message(BaseModel):
    """A message we write: an undeclared field is an error, so readers may rely on the schema."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Payload(BaseModel):
    """The `data` of a message somebody else writes.

    A field we do not know is refused by name: ignoring a misspelt `modle` would answer another
    question than the one asked. Workers are therefore upgraded before the producers that use a
    new field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Attributes(BaseModel):
    """CloudEvents attributes somebody else writes; extensions we do not know are ignored.

    CloudEvents 1.0 lets any intermediary add extension attributes, so refusing them would refuse
    conforming producers.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
