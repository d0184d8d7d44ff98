"""How long a fetch may wait for more records: so long that nobody notices.

A fetch that waits brings more of them, and each fetch costs the worker and the broker processor
time. But a record that could run at once waits, too. So a fetch waits for a tenth of the time that
records spend in the process anyway, if that brings a record more. Where so many come in that fetches
cost the model its processor, one record in ten may wait longer than that.

Owner: the thread that polls.
"""

from dataclasses import dataclass
from typing import Final

UNNOTICED: Final = 0.1
"""The part of the time that a record spends in the process by which it may wait for company."""

_FEW_MS: Final = 100
"""What aiokafka's one fetch per broker waits for the first record. At Faust's 1500 ms a drained
partition waits that long behind the empty ones: 10.7 records/s instead of 47.7 with 100 kB records."""
_MANY_BYTES: Final = 1 << 20
_MOST_MS: Final = 50  # what comes to an empty topic meanwhile waits as long
_MANY_MS: Final = 20
_MUCH_PER_S: Final = 400.0  # from here on 20 ms bring eight records or more
_MOST: Final = 0.9  # of the records that come in
_WINDOW_S: Final = 0.5


@dataclass(slots=True)
class _Topic:
    records: int = 0
    polls: int = 0
    held: int = 0  # summed over those polls


class Pace:
    """Follows how many records come in and how long they stay, topic by topic.

    Attributes:
        fetch: the least bytes that the next fetch brings, and the milliseconds after which it
            brings less.
    """

    def __init__(self, *, now_s: float) -> None:
        self.fetch = (1, _FEW_MS)
        self._began_s = now_s
        self._topics: dict[str, _Topic] = {}

    def took(self, topic: str, records: int, *, held: int) -> None:
        """Count what a poll took of a topic, of which so many records were in the process."""
        seen = self._topics.setdefault(topic, _Topic())
        seen.records += records
        seen.polls += 1
        seen.held += held

    def look(self, *, now_s: float) -> None:
        """Decide by what came in over the last half second, or since the poll before it.

        A record stays for what is held of its topic over what comes in (Little, "A Proof for the
        Queuing Formula: L = λW", 1961). The topic whose records stay for the shortest time decides.
        """
        spent_s = now_s - self._began_s
        if spent_s < _WINDOW_S:
            return
        stays_s = {
            topic: seen.held / seen.polls * spent_s / seen.records
            for topic, seen in self._topics.items()
        }
        records = sum(seen.records for seen in self._topics.values())
        unhurt = sum(
            seen.records
            for topic, seen in self._topics.items()
            if stays_s[topic] * UNNOTICED >= _MANY_MS / 1000
        )
        much = unhurt >= max(_MUCH_PER_S * spent_s, _MOST * records)
        unnoticed_ms = int(1000 * UNNOTICED * min(stays_s.values(), default=0.0))
        wait_ms = max(_MANY_MS if much else 0, min(_MOST_MS, unnoticed_ms))
        worth = wait_ms * records >= 1000 * spent_s
        self.fetch = (_MANY_BYTES, wait_ms) if worth else (1, _FEW_MS)
        self._topics.clear()
        self._began_s = now_s
