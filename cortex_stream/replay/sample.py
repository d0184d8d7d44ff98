"""Which requests are compared, and how many ended how: bounded in memory for any number. Pure.

The sample is those requests whose outcome ids are the smallest. An id is a hash of the request and
the replay's id, so this draws evenly, and draws the same again when a report is made anew.
"""

import heapq
from array import array
from collections.abc import Mapping
from typing import Final

import numpy as np

from schemas.outcomes import OutcomeKind

_KINDS: Final = tuple(OutcomeKind)  # a result comes first: it supersedes what is said beside it
_DIGITS: Final = 16  # 64 bits: among 10 million requests, two are alike once in 400,000 replays


class SmallestIds:
    """Keeps the smallest ids as long as their weights are no more than `most` together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._weight = 0
        self._largest_first: list[tuple[int, int]] = []
        self._ids: set[int] = set()
        self._below = 1 << 128

    def add(self, identity: str, weight: int) -> None:
        """Consider an id of hexadecimal digits; one that is there already changes nothing."""
        number = int(identity, 16)
        if number >= self._below or number in self._ids:
            return
        heapq.heappush(self._largest_first, (-number, weight))
        self._ids.add(number)
        self._weight += weight
        while self._weight > self._most and len(self._ids) > 1:
            largest, its_weight = heapq.heappop(self._largest_first)
            self._ids.remove(-largest)
            self._weight -= its_weight
            self._below = -largest  # else a light one could slip in where a heavy one had to go

    def __contains__(self, identity: str) -> bool:
        """Tell whether the id is among those kept."""
        return int(identity, 16) in self._ids

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._ids)


class Tally:
    """Counts how requests ended, each once, in 18 bytes for each."""

    def __init__(self) -> None:
        self._expected: array[int] = array("Q")
        self._seen: array[int] = array("Q")
        self._ends: array[int] = array("H")  # indices into the next
        self._known: dict[tuple[OutcomeKind, str | None], int] = {}

    def expect(self, identity: str) -> None:
        """Count on an outcome of that id; saying it again changes nothing."""
        self._expected.append(int(identity[:_DIGITS], 16))

    def see(self, identity: str, kind: OutcomeKind, code: str | None = None) -> None:
        """Take note of an outcome, and of its error code where it has one.

        What nobody expects is left out of all counts.
        """
        self._seen.append(int(identity[:_DIGITS], 16))
        self._ends.append(self._known.setdefault((kind, code), len(self._known)))

    def expected(self) -> int:
        """Return how many outcomes there should be."""
        return len(np.unique(_numbers(self._expected)))

    def missing(self) -> int:
        """Return how many of them are not there."""
        return len(np.setdiff1d(_numbers(self._expected), _numbers(self._seen)))

    def ends(self) -> Mapping[tuple[OutcomeKind, str | None], int]:
        """Return how many requests ended how, by kind and error code."""
        known = list(self._known)
        ranks = np.array([_KINDS.index(kind) for kind, _ in known], np.int64)
        seen, ends = _numbers(self._seen), np.array(self._ends, np.int64)
        wanted = np.isin(seen, _numbers(self._expected))
        seen, ends = seen[wanted], ends[wanted]
        order = np.lexsort((ranks[ends], seen))
        _, first = np.unique(seen[order], return_index=True)
        counts = np.bincount(ends[order][first], minlength=len(known))
        return {known[index]: int(count) for index, count in enumerate(counts)}


def _numbers(values: "array[int]") -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(values, np.uint64)
