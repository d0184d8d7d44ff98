"""Audit records: who did what to which part of the system, and when."""

from typing import Literal

from pydantic import Field

from schemas.contract import Count, Message


class AuditRecord(Message):
    """One decision of a person or a tool; the record's key is the principal."""

    schema_version: Literal["cortex.audit.v1"]
    at: str = Field(description="RFC 3339, UTC.")
    principal: str = Field(description="Who: `user@host`, or `web-token@host` for the pages.")
    action: str = Field(description="What was done, as `dead_letter.redrive`.")
    subject: str = Field(description="To what, as `cortex.dead-letters/0/42`.")
    details: dict[str, str | Count | bool | None] = Field(description="What else belongs to it.")
