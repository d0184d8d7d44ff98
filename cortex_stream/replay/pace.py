"""How fast a replay may put records back. Pure."""

from typing import Final

from cortex_stream.errors import OperatorError

_CATCH_UP_S: Final = 1.0


class Pace:
    """Spaces records evenly.

    What a pause of up to a second has missed is made up for, so that the mean is the rate; a longer
    one is not, so that none is followed by a flood.
    """

    def __init__(self, per_s: float | None) -> None:
        """Allow `per_s` records a second; None: any number."""
        self._per_s = per_s
        self._free_at_s: float | None = None

    def delay_s(self, records: int, *, now_s: float) -> float:
        """Return how long to wait before `records` records, which count from then on."""
        if self._per_s is None:
            return 0.0
        if self._free_at_s is None:
            self._free_at_s = now_s
        begin_s = max(self._free_at_s, now_s - _CATCH_UP_S)
        self._free_at_s = begin_s + records / self._per_s
        return max(0.0, begin_s - now_s)


def chunk_records(per_s: float | None, *, most: int) -> int:
    """Return how many records to put back at once: a tenth of a second's worth, 1 to `most`."""
    return most if per_s is None else max(1, min(most, int(per_s / 10)))


def parse_rate(text: str) -> float:
    """Return the records a second that `50/s` or `50` names.

    Raises:
        OperatorError: it names no positive number.
    """
    try:
        per_s = float(text.removesuffix("/s"))
    except ValueError:
        per_s = 0.0
    if not 0 < per_s < float("inf"):
        raise OperatorError(f"reading --rate {text[:64]!r}: wanted a positive number, such as 50/s")
    return per_s
