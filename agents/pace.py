"""How long a fetch may wait for more records: as long as nobody notices.

A fetch that waits brings more records, which takes less processor time a record, of the broker, too.
At 800 records a second one that waits 20 ms brings 16 instead of 4, and a worker in overload answers
a quarter more. But a record that could run at once waits, too.

Owner: the thread that polls.
"""

from typing import Final

_FEW_MS: Final = 100
"""What aiokafka's one fetch per broker waits for the first record. At Faust's 1500 ms a drained
partition waits that long behind the empty ones: 10.7 records/s instead of 47.7 with 100 kB records."""
_MANY_MS: Final = 20
_MANY_BYTES: Final = 1 << 20
_WORTH_PER_S: Final = 400.0  # from here on 20 ms bring eight records or more
_NOTICED_PART: Final = 10  # of the time that a record spends in the process
_WINDOW_S: Final = 0.5


class Pace:
    """Follows how many records come in, and says what the next fetch waits for."""

    def __init__(self, *, now_s: float) -> None:
        self._began_s = now_s
        self._count = 0
        self._per_s = 0.0

    def took(self, records: int, *, now_s: float) -> None:
        """Count what a poll took."""
        self._count += records
        spent_s = now_s - self._began_s
        if spent_s >= _WINDOW_S:
            self._per_s = self._count / spent_s
            self._count, self._began_s = 0, now_s

    def wait(self, *, held: int) -> tuple[int, int]:
        """Return the least bytes that a fetch brings, and the milliseconds after which it brings less.

        It waits for many only while records come fast, and each of the `held` ones stays in the
        process for ten times that long.
        """
        stay_s = held / self._per_s if self._per_s else 0.0
        if self._per_s >= _WORTH_PER_S and stay_s >= _NOTICED_PART * _MANY_MS / 1000:
            return _MANY_BYTES, _MANY_MS
        return 1, _FEW_MS
