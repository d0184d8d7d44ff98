"""Which letters are meant. Pure."""

import datetime as dt
import re
from dataclasses import dataclass
from typing import Final

from cortex_stream.dead_letters.letter import Letter

_AGO: Final = re.compile(r"([0-9]{1,9})([smhd])")
_UNIT_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """What a letter must have; an empty set or None asks for nothing.

    Attributes:
        topics: of the failed record, as the cluster names them.
        since_ms, until_ms: when the letter was written; the first counts, the second does not.
    """

    codes: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None

    def matches(self, letter: Letter) -> bool:
        """Tell whether the letter is meant."""
        if self.since_ms is not None and letter.written_ms < self.since_ms:
            return False
        if self.until_ms is not None and letter.written_ms >= self.until_ms:
            return False
        topic = None if letter.origin is None else letter.origin.topic
        return (
            (not self.codes or letter.code in self.codes)
            and (not self.types or letter.asked.type in self.types)
            and (not self.tenants or letter.asked.tenant in self.tenants)
            and (not self.topics or topic in self.topics)
        )


EVERYTHING: Final = LetterFilter()


def moment_ms(text: str, *, now_unix_ms: int) -> int:
    """Return the moment that `90s`, `15m`, `2h`, `7d` (ago) or an ISO 8601 time names.

    A time without an offset is meant in UTC.

    Raises:
        ValueError: it names none.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now_unix_ms - int(ago[1]) * _UNIT_MS[ago[2]]
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is neither so long ago (90s, 15m, 2h, 7d) nor a time (2026-01-31T12:00:00Z)"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return int(moment.timestamp() * 1000)
