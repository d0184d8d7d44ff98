"""Request ids that are used again for another payload: noticed where a client's request arrives."""

from typing import Protocol

from cortex_stream.errors import Conflict
from cortex_stream.routing.request import Request
from schemas.requests import UNKNOWN_SOURCE


class DedupeWindow(Protocol):
    """Remembers the first payload of each request id for a while."""

    async def conflicts(self, *, source: str, request_id: str, payload_digest: bytes) -> bool:
        """Return whether this id of `source` is remembered with another payload.

        False where that is not known, within a bounded time. Never raises.
        """
        ...


async def find_reuse(window: DedupeWindow, request: Request) -> Conflict | None:
    """Return why `request` is refused if its id came with another payload a short while ago."""
    attributes = request.attributes
    reused = await window.conflicts(
        source=attributes.source,
        request_id=attributes.id,
        payload_digest=request.payload_digest,
    )
    if not reused:
        return None
    whose = f"source {attributes.source!r} has"
    remedy = "give each request a new id"
    if attributes.source == UNKNOWN_SOURCE:
        whose = "somebody without a source has"
        remedy += ", and your requests a source of their own"
    return Conflict(
        f"id: {whose} used {attributes.id!r} for another payload a short while ago; {remedy}",
        field="id",
    )
