"""What of a tenant waits in a lane, by when it is due. Pure.

Owner: whoever calls it; it holds no lock.
"""

from typing import Final

from cortex_stream.deadline import Deadline

STEP_S: Final = 0.25
_FAR_STEPS: Final = 80
"""What is due later than in 20 s is not looked for."""


class DueTokens:
    """Tokens of the rows that wait, counted in steps of a quarter of a second."""

    __slots__ = ("_by_step", "total")

    def __init__(self) -> None:
        """Count nothing yet."""
        self.total = 0
        """Tokens of all rows, those without a deadline among them."""
        self._by_step: dict[int, int] = {}  # none is 0

    def add(self, tokens: int, deadline: Deadline | None) -> None:
        """Count a row that comes."""
        self.total += tokens
        if deadline is not None:
            step = _step(deadline.at_s)
            self._by_step[step] = self._by_step.get(step, 0) + tokens

    def remove(self, tokens: int, deadline: Deadline | None) -> None:
        """Count a row no more."""
        self.total -= tokens
        if deadline is not None:
            step = _step(deadline.at_s)
            self._by_step[step] -= tokens
            if not self._by_step[step]:
                del self._by_step[step]

    def before(self, deadline: Deadline, *, now_s: float, token_s: float) -> float:
        """Return about how many tokens are due from now to `deadline`, and will run.

        No more run until a moment than there is time for, `token_s` seconds for each: the others
        will expire, and keep nobody waiting.
        """
        begin = _step(now_s)
        steps: range | list[int] = range(begin, min(_step(deadline.at_s), begin + _FAR_STEPS) + 1)
        if len(self._by_step) < len(steps):
            steps = sorted(step for step in self._by_step if step in steps)
        tokens = 0.0
        for step in steps:
            if due := self._by_step.get(step):
                tokens = min(tokens + due, ((step + 1) * STEP_S - now_s) / token_s)
        return tokens


def _step(at_s: float) -> int:
    return int(at_s / STEP_S)
