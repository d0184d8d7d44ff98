"""`model.yaml`: what a model version is and how it is run.

The digest is the SHA-256 of the manifest without its digest (JSON, keys sorted, no spaces). As the
manifest holds the SHA-256 of every other file, the digest covers the whole folder.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from cortex_stream.errors import UnsafeModel
from cortex_stream.registry.plain_file import open_plain

MANIFEST_FILE: Final = "model.yaml"
_MANIFEST_BYTES: Final = 1 << 20  # a few thousand labels fit


FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""A file right in the version's folder. There are no sub-folders, so no path can leave it."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Role = Annotated[str, StringConstraints(pattern=r"^(query|passage)$")]
ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
ModelVersionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]


class Manifest(BaseModel):
    """The whole of `model.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = Field(description="Version of this schema.")
    name: ModelName
    version: ModelVersionName
    task: Literal["embedding", "sequence-classification"]
    precision: Literal["fp32", "fp16", "int8"]
    batch_invariant: bool | None = Field(
        None,
        description="Whether a text's answer is the same in any company; if it does not say, int8 is"
        " taken to depend on it, and floats not to.",
    )
    licence: str = Field(min_length=1, description="SPDX identifier of the weights' licence.")
    source: str = Field(min_length=1, description="Where the weights came from.")
    file: FileName = Field(pattern=r"\.onnx$", description="The ONNX graph.")
    tokenizer: FileName = Field(description="The tokenizer.json.")
    output: str = Field(min_length=1, description="The graph's output that is read.")
    pooling: Literal["mean", "cls"] | None = Field(
        None, description="How hidden states become one vector; none if the graph pools."
    )
    normalise: bool = Field(False, description="Whether vectors are brought to length one.")  # noqa: FBT003 (pydantic's default)
    dims: int | None = Field(None, ge=1, le=65536, description="Numbers per vector.")
    labels: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="Of a classification model, in the order of its logits."
    )
    max_tokens: int = Field(ge=3, le=131072, description="Longer texts are cut, specials included.")
    prefixes: dict[Role, str] = Field(
        default_factory=dict, description="Put before a text by its role; passage if it has none."
    )
    files: dict[FileName, Sha256] = Field(description="SHA-256 of every file but this one.")
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        missing = {self.file, self.tokenizer} - self.files.keys()
        if missing:
            raise ValueError(f"files does not list {sorted(missing)}")
        if MANIFEST_FILE in self.files:
            raise ValueError("files lists the manifest, which cannot hold its own SHA-256")
        if self.task == "embedding" and (self.dims is None or self.labels):
            raise ValueError("an embedding model has dims and no labels")
        if self.task == "sequence-classification" and (
            not self.labels or self.dims is not None or self.pooling or self.normalise
        ):
            raise ValueError("a classification model has labels, no dims, no pooling")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels repeats a label")
        return self

    @property
    def is_batch_invariant(self) -> bool:
        """Whether a text's answer does not depend on the other texts of its batch.

        Int8 answers are then equal bit for bit; floats to rounding (1e-5 of a unit vector in fp32).
        """
        return self.precision != "int8" if self.batch_invariant is None else self.batch_invariant

    def true_digest(self) -> str:
        """Return the digest that this manifest should state."""
        content = self.model_dump(mode="json", exclude_unset=True, exclude={"digest"})
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()

    def sealed(self) -> Self:
        """Return the manifest with the digest that it should state."""
        return self.model_copy(update={"digest": self.true_digest()})

    def write(self, folder: Path) -> None:
        """Write `model.yaml` into `folder`."""
        content = self.model_dump(mode="json", exclude_unset=True)
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
        (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Return the folder's manifest, its fields checked, its digest and files not.

    Raises:
        UnsafeModel: it is missing, no plain file, too large, no YAML, or breaks the schema.
    """
    path = folder / MANIFEST_FILE
    try:
        with open_plain(path, max_bytes=_MANIFEST_BYTES) as file:
            content = yaml.safe_load(file)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnsafeModel(f"reading {path}: it is not YAML: {error}") from error
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'the whole'}: {e['msg']}" for e in error.errors()
        )
        raise UnsafeModel(f"reading {path}: {wrong}") from error
