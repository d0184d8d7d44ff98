"""A picture of latencies over time: one SVG that reads well on light and on dark paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import ceil, floor, log10
from typing import Final

import jinja2

_WIDTH: Final = 860
_HEIGHT: Final = 420
_LEFT: Final = 70  # margins, as the next three
_RIGHT: Final = 30
_TOP: Final = 92
_BOTTOM: Final = 52
_TICKS_S: Final = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
_MOST_TICKS: Final = 10
_COLORS: Final = 6  # what the template has
_LEGEND_COLUMN: Final = 130


@dataclass(frozen=True, slots=True)
class Line:
    """One quantity over time.

    Attributes:
        label: lines of one label share a color and one entry of the legend.
        points: (seconds, milliseconds), in order of time.
        dashed: for the lesser of two lines with one label, here the median.
    """

    label: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


def latency_plot(title: str, lines: Sequence[Line]) -> str:
    """Return the SVG: seconds to the right, milliseconds upward in decades."""
    drawn = [line for line in lines if line.points]
    values = [max(ms, 1.0) for line in drawn for _, ms in line.points] or [1.0]
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    high = max(high, low + 1)
    last_s = max((second for line in drawn for second, _ in line.points), default=1.0) or 1.0

    def x(second: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * second / last_s

    def y(ms: float) -> float:
        share = (log10(max(ms, 1.0)) - low) / (high - low)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    labels = list(dict.fromkeys(line.label for line in drawn))
    step = next((tick for tick in _TICKS_S if last_s / tick <= _MOST_TICKS), _TICKS_S[-1])
    return _template().render(
        title=title,
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        right=_WIDTH - _RIGHT,
        bottom=_HEIGHT - _BOTTOM,
        rows=[(y(10**decade), f"{10**decade:,}") for decade in range(low, high + 1)],
        columns=[(x(second), str(second)) for second in range(0, floor(last_s) + 1, step)],
        legend=[
            (_LEFT + _LEGEND_COLUMN * index, label, index % _COLORS)
            for index, label in enumerate(labels)
        ],
        lines=[
            (
                " ".join(f"{x(second):.1f},{y(ms):.1f}" for second, ms in line.points),
                labels.index(line.label) % _COLORS,
                line.dashed,
            )
            for line in drawn
        ],
    )


@cache
def _template() -> jinja2.Template:
    source = (files("cortex_stream.loadtest") / "templates" / "latency.svg").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source)
