"""Invalidations: what every cache of the platform must forget."""

from enum import StrEnum

from pydantic import Field

from schemas.contract import Message, NonEmptyText


class InvalidationScope(StrEnum):
    """What `value` names."""

    KEY = "key"
    TAG = "tag"
    PATTERN = "pattern"
    MODEL = "model"
    TENANT = "tenant"
    COLLECTION = "collection"


class Invalidation(Message):
    """One thing to forget, on `cortex.invalidations`; the record's key is `<scope>:<value>`."""

    scope: InvalidationScope = Field(strict=False)
    value: NonEmptyText
    at: str = Field(description="RFC 3339, UTC: forget what was cached before it.")
    source_instance: str = Field(description="The process that says so.")
