"""How long a request may take, decided before any work."""

from typing import Final

from cortex_stream.deadline import Deadline
from cortex_stream.record import RecordSource
from schemas.requests import RequestAttributes

MAX_AHEAD_MS: Final = 60_000
"""A moment further in the future than this comes from a wrong clock and does not count."""


def decide_deadline(
    attributes: RequestAttributes, source: RecordSource, *, now_s: float, now_unix_ms: int
) -> Deadline | None:
    """Return when nobody waits any more, on the monotonic clock, or None without `deadlinems`.

    The budget runs from `time`; from the record's timestamp where `time` is missing or more than
    60 s ahead of now; from now where the timestamp is no better.
    """
    if attributes.deadlinems is None:
        return None
    latest_ms = now_unix_ms + MAX_AHEAD_MS
    began_ms = source.timestamp_ms if 0 <= source.timestamp_ms <= latest_ms else now_unix_ms
    if attributes.time is not None:
        stated_ms = int(attributes.time.timestamp() * 1000)
        if stated_ms <= latest_ms:
            began_ms = stated_ms
    elapsed_s = (now_unix_ms - began_ms) / 1000
    return Deadline(now_s + attributes.deadlinems / 1000 - elapsed_s)
