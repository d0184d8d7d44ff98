"""Outcome ids: the same request has the same id, however often and wherever it is processed."""

import hashlib
from typing import Final

OUTCOME_ID_HEX_DIGITS: Final = 32


def outcome_id(
    *, source: str, request_id: str, payload_digest: bytes, replay_id: str | None
) -> str:
    """Return the id of the outcome of a request whose id could be read.

    A replay or redrive carries a replay id of its own and so gets an outcome of its own.
    """
    return _digest(source.encode(), request_id.encode(), payload_digest, (replay_id or "").encode())


def unreadable_outcome_id(
    *, topic: str, partition: int, offset: int, replay_id: str | None = None
) -> str:
    """Return the id of the outcome of a record in which no request id could be read."""
    place = (topic.encode(), str(partition).encode(), str(offset).encode())
    return _digest(*place) if replay_id is None else _digest(*place, replay_id.encode())


def _digest(*parts: bytes) -> str:
    """Hash `parts`, each preceded by its length so that no two lists of parts look alike."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:OUTCOME_ID_HEX_DIGITS]
