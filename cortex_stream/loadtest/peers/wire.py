"""What peers read and write: the embed request, and as much of its outcome as measuring needs. Pure."""

import base64
from collections.abc import Mapping
from typing import Any

from cortex_stream.inference.tensors import FloatRows


def texts_of(request: Mapping[str, Any]) -> list[str]:
    """Return the texts of an embed request, a CloudEvent in structured JSON."""
    texts: list[str] = request["data"]["texts"]
    return texts


def answer_to(request: Mapping[str, Any], vectors: FloatRows) -> dict[str, Any]:
    """Return the outcome that holds the vectors, base64 of little-endian float32, one per text."""
    return {
        "subject": request["id"],
        "data": {
            "request_id": request["id"],
            "output": {
                "encoding_format": "base64",
                "dims": vectors.shape[1],
                "vectors": [
                    base64.b64encode(vector.astype("<f4", copy=False)).decode("ascii")
                    for vector in vectors
                ],
            },
        },
    }
