"""The JSON Schemas that other services consume: one document for each kind of message."""

from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import CoreSchema

from schemas.audit import AuditRecord
from schemas.cut_overs import CutOver
from schemas.events import DocumentChanged, DocumentDeleted, ModelPublished, StreamEvent
from schemas.invalidations import Invalidation
from schemas.outcomes import Outcome
from schemas.requests import ClassifyRequest, EmbedRequest
from schemas.vectors import LakeVector

EXPORTED: Final[dict[str, type[BaseModel]]] = {
    "embed-request.v1": EmbedRequest,
    "classify-request.v1": ClassifyRequest,
    "outcome.v1": Outcome,
    "document-changed.v1": DocumentChanged,
    "document-deleted.v1": DocumentDeleted,
    "model-published.v1": ModelPublished,
    "stream-event.v1": StreamEvent,
    "invalidation.v1": Invalidation,
    "lake-vector.v1": LakeVector,
    "audit.v1": AuditRecord,
    "cut-over.v1": CutOver,
}
"""Every exported message by the name of its file in `schemas/json/`, without `.json`."""

_WRITTEN_BY_US_ALONE: Final = (Outcome, LakeVector, AuditRecord, CutOver)


class _Generator(GenerateJsonSchema):
    """JSON Schema 2020-12 that names its dialect, without a title for every field."""

    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        return {"$schema": self.schema_dialect, **super().generate(schema, mode)}

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 (their signature)
        return False


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of every exported message, by name."""
    return {name: _json_schema(name, model) for name, model in EXPORTED.items()}


def _json_schema(name: str, model: type[BaseModel]) -> dict[str, Any]:
    stem, _, version = name.rpartition(".")
    schema = model.model_json_schema(schema_generator=_Generator)
    if model in _WRITTEN_BY_US_ALONE:
        _open(schema)
    return {
        "$schema": schema.pop("$schema"),
        "$id": f"urn:cortex-stream:schema:{stem}:{version}",
        **schema,
    }


def _open(schema: dict[str, Any]) -> None:
    """Allow fields that a later release adds: who checks with today's schema must not stop then."""
    for part in (schema, *schema.get("$defs", {}).values()):
        part.pop("additionalProperties", None)
