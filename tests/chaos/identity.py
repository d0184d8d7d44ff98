"""The outcome id of a record, computed from the rule in `docs/decisions/0006`, not from the worker.

The standard library alone: what is wrong in the worker's reading must not be wrong here as well.
"""

import hashlib
import json
from typing import Any

from tests.chaos.evidence import Record
from tests.chaos.history import Identity

_UNKNOWN_SOURCE = "//unknown"


def expected_outcome_id(
    record: Record, *, prefix: str, identity: Identity, request_id: str | None
) -> str:
    """Return the id under which the record must be answered."""
    if identity == "place" or request_id is None:
        topic = f"{prefix}.{record.topic}"
        return _name(topic.encode(), b"%d" % record.partition, b"%d" % record.offset)
    if identity == "bytes":
        return _name(
            _UNKNOWN_SOURCE.encode(),
            request_id.encode(),
            hashlib.sha256(record.value or b"").digest(),
            b"",
        )
    binary = {
        name.removeprefix("ce_"): (data or b"").decode()
        for name, data in record.headers
        if name.startswith("ce_")
    }
    body = json.loads(record.value or b"null")
    event: dict[str, Any] = {**binary, "data": body} if binary else body
    source, asked = event.get("source", _UNKNOWN_SOURCE), event.get("type")
    canonical = json.dumps(
        event.get("data"), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    payload = hashlib.sha256((asked if isinstance(asked, str) else "").encode() + b"\0")
    payload.update(canonical.encode())
    return _name(source.encode(), request_id.encode(), payload.digest(), b"")


def _name(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:32]
