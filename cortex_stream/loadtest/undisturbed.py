"""Runs that the hypervisor disturbs are measured again.

A virtual machine shares its cores with other guests. What they take, for seconds or for minutes, lands on
whichever side is measured just then, and a latency near the limit of the machine multiplies it.
"""

from collections.abc import Awaitable, Callable

from cortex_stream.loadtest.report import MOST_STOLEN_CORES
from cortex_stream.loadtest.sides import Measured


class Undisturbed:
    """Measures again where more than a tenth of a core was stolen, so often in all."""

    def __init__(self, *, most_repeats: int, say: Callable[[str], None]) -> None:
        """Begin a profile."""
        self.repeats = 0
        """Runs that were measured again."""
        self.most_repeats = most_repeats
        self._say = say

    async def run(self, measure: Callable[[int], Awaitable[Measured]]) -> Measured:
        """Return the first run that was not disturbed, or the least disturbed where repeats are used up.

        Which of them counts is decided by what was stolen alone. `measure` is given the number of
        the try, from 1.
        """
        tries = 1
        best = await measure(tries)
        while best.stolen_cores > MOST_STOLEN_CORES and self.repeats < self.most_repeats:
            self._say(f"   {best.stolen_cores:.2f} cores were stolen meanwhile: once more")
            self.repeats += 1
            tries += 1
            best = min(best, await measure(tries), key=lambda each: each.stolen_cores)
        return best

    @property
    def method(self) -> str:
        """How it was done, for a report."""
        return (
            f"{self.repeats}, at most {self.most_repeats}: while more than {MOST_STOLEN_CORES:g} cores"
            " were stolen; of the tries of a run the least disturbed counts"
        )
