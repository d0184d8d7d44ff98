"""How much slower this machine is now than the one on which bounds of time were measured.

A virtual machine may do half of its work for minutes. A bound that multiplies with `slowness` says the
same on both, and still notices code that became slower.
"""

import gc
from heapq import heappop, heappush
from time import process_time
from typing import Final

_ENTRIES: Final = 100_000
_REFERENCE_S: Final = 1.6e-6  # an entry pushed and popped, where the bounds were measured


def slowness() -> float:
    """Return how many times longer a heap takes than on the machine of the bounds; 1 at least."""
    was_enabled = gc.isenabled()
    gc.disable()
    spent_s = min(_heap_s() for _ in range(3))
    if was_enabled:
        gc.enable()
    return max(1.0, spent_s / _ENTRIES / _REFERENCE_S)


def _heap_s() -> float:
    began_s = process_time()
    heap: list[tuple[int, int]] = []
    for n in range(_ENTRIES):
        heappush(heap, (n * 7919 % 100_003, n))
    while heap:
        heappop(heap)
    return process_time() - began_s
