"""The last failures of this process, for people: the status page shows them, newest first.

Invariants: never more than `capacity` entries, and no entry's message longer than `MESSAGE_CHARS`,
so that a flood of failures costs constant memory.
Owner: the event loop's thread.
"""

from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Final

from cortex_stream.clock import Clock

MESSAGE_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class RecordedError:
    """One failure. The texts come from producers: whoever shows them must escape them."""

    at_unix_ms: int
    code: str
    message: str
    request_id: str | None
    topic: str | None
    partition: int | None
    offset: int | None


class ErrorsLog:
    """A ring of the last failures."""

    def __init__(self, *, clock: Clock, capacity: int = 100) -> None:
        self._clock = clock
        self._ring: deque[RecordedError] = deque(maxlen=capacity)

    def record(
        self,
        *,
        code: str,
        message: str,
        request_id: str | None = None,
        topic: str | None = None,
        partition: int | None = None,
        offset: int | None = None,
    ) -> None:
        """Remember one failure, stamped with the present time; the oldest one may be forgotten."""
        self._ring.append(
            RecordedError(
                at_unix_ms=self._clock.unix_ms(),
                code=code,
                message=_clipped(message, MESSAGE_CHARS),
                request_id=None if request_id is None else _clipped(request_id, 128),
                topic=topic,
                partition=partition,
                offset=offset,
            )
        )

    def newest(self, limit: int = 20) -> tuple[RecordedError, ...]:
        """Return at most `limit` failures, newest first."""
        return tuple(islice(reversed(self._ring), limit))


def _clipped(text: str, chars: int) -> str:
    # "replace": half a surrogate pair from a broken producer could not be written to a page.
    shorter = text if len(text) <= chars else text[: chars - 1] + "…"
    return shorter.encode("utf-8", "replace").decode("utf-8")
