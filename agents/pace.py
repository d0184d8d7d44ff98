"""How long a fetch may wait for more records: as long as nobody notices.

A fetch that waits brings more of them, and each costs the worker and the broker less processor time.
At 800 records a second a fetch that waits 20 ms brings 16 instead of 4. But a record that could run
at once waits, too.

Owner: the thread that polls.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

_FEW_MS: Final = 100
"""What aiokafka's one fetch per broker waits for the first record. At Faust's 1500 ms a drained
partition waits that long behind the empty ones: 10.7 records/s instead of 47.7 with 100 kB records."""
_MANY_MS: Final = 20
_MANY_BYTES: Final = 1 << 20
_WORTH_PER_S: Final = 400.0  # from here on 20 ms bring eight records or more
_UNNOTICED_S: Final = 0.2  # in the process: ten times as long
_MOST: Final = 0.9  # of the records that come in
_WINDOW_S: Final = 0.5


class Pace:
    """Follows how many records of each topic come in, and says what the next fetch waits for."""

    def __init__(self, *, now_s: float) -> None:
        self._began_s = now_s
        self._counts: Counter[str] = Counter()
        self._per_s: dict[str, float] = {}

    def took(self, topic: str, records: int) -> None:
        """Count what a poll took of a topic."""
        self._counts[topic] += records

    def look(self, *, now_s: float) -> None:
        """See what came in over the last half second, or since the poll before it."""
        spent_s = now_s - self._began_s
        if spent_s >= _WINDOW_S:
            self._per_s = {topic: count / spent_s for topic, count in self._counts.items()}
            self._counts.clear()
            self._began_s = now_s

    def wait(self, held: Callable[[str], int]) -> tuple[int, int]:
        """Return the least bytes that a fetch brings, and the milliseconds after which it brings less.

        It waits for many while much comes in, nine of ten records in topics whose records stay in
        the process for 200 ms or more: what is `held` of a topic, over what comes in.
        """
        stay_per_s = sum(
            per_s for topic, per_s in self._per_s.items() if held(topic) >= per_s * _UNNOTICED_S
        )
        if stay_per_s >= max(_WORTH_PER_S, _MOST * sum(self._per_s.values())):
            return _MANY_BYTES, _MANY_MS
        return 1, _FEW_MS
