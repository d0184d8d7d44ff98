"""What a report must show before a name may mean another version. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from cortex_stream.errors import OperatorError

Side: TypeAlias = Literal["at least", "at most"]

BOUNDS: Final[Mapping[str, tuple[Side, float]]] = {
    "compared": ("at least", 100),
    "failed": ("at most", 0),
    "mean-cosine": ("at least", 0.98),
    "least-cosine": ("at least", 0.9),
    "neighbours": ("at least", 0.8),
    "flips": ("at most", 0.02),
    "latency": ("at most", 2),
}
"""What each figure must be at least or at most, unless `--gate` says otherwise."""


@dataclass(frozen=True, slots=True)
class Check:
    """One figure beside its bound. `measured` None: there should be such a figure, and is none."""

    name: str
    measured: float | None
    side: Side
    bound: float
    passed: bool

    def __str__(self) -> str:
        measured = "none" if self.measured is None else f"{self.measured:.4g}"
        return f"{self.name} {measured}, wanted {self.side} {self.bound:g}"


def parse_gate(texts: Sequence[str]) -> dict[str, float]:
    """Return the bound of every figure, those that `--gate` names instead of the usual ones.

    Raises:
        OperatorError: one is not `name=number`, or names no figure.
    """
    bounds = {name: bound for name, (_, bound) in BOUNDS.items()}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            bound = float(number)
        except ValueError:
            bound = math.nan
        if name not in BOUNDS or math.isnan(bound):
            raise OperatorError(
                f"reading --gate {text[:64]!r}: wanted name=number, the name one of"
                f" {', '.join(BOUNDS)}"
            )
        bounds[name] = bound
    return bounds


def decide_gate(
    figures: Mapping[str, float | None], bounds: Mapping[str, float]
) -> tuple[Check, ...]:
    """Return how each figure stands to its bound; what `figures` leaves out is not asked for."""
    return tuple(
        Check(name, figures[name], side, bounds[name], _holds(figures[name], side, bounds[name]))
        for name, (side, _) in BOUNDS.items()
        if name in figures
    )


def _holds(measured: float | None, side: Side, bound: float) -> bool:
    if measured is None:
        return False
    return measured >= bound if side == "at least" else measured <= bound
