"""What every part of the settings tree is."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One part of the tree: frozen, and a misspelt name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
