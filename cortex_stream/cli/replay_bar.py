"""How far a replay is: a bar with rate and time left on a terminal, else a line every few seconds."""

from types import TracebackType
from typing import Final, Self

import rich.progress
from rich.console import Console

from cortex_stream.clock import Clock
from cortex_stream.replay.journal import Standing

_LINE_EVERY_S: Final = 5.0


class ReplayBar:
    """Told again and again how a replay stands. Leaving it as a context manager takes the bar away."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._line_at_s = clock.monotonic_s() + _LINE_EVERY_S
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("  {task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.percentage:3.0f} %  {task.fields[per_s]:.0f}/s"),
            rich.progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: rich.progress.TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def tell(self, standing: Standing) -> None:
        """Show how the replay stands."""
        done, total = standing.done_offsets, standing.plan.offsets
        if self._console.is_terminal:
            if self._task is None:
                self._task = self._bar.add_task(standing.replay_id, total=total, per_s=0.0)
            self._bar.update(self._task, completed=done, per_s=standing.per_s)
        elif self._clock.monotonic_s() >= self._line_at_s:
            self._line_at_s = self._clock.monotonic_s() + _LINE_EVERY_S
            self._console.print(
                f"{standing.replay_id}: {done} of {total} offsets read ({done / total:.0%}),"
                f" {standing.put_back} records put back, {standing.per_s:.0f}/s",
                soft_wrap=True,
            )
