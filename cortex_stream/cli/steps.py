"""Shows a long command at work: steps, downloads, progress; plain lines where there is no terminal.

Owner: any thread may tell; rich and a lock keep lines whole.
"""

import threading
from types import TracebackType
from typing import Final, Self

import rich.progress
from rich.console import Console
from rich.text import Text

_TITLE_COLUMNS: Final = 10
_PLAIN_STEP_PERCENT: Final = 25


class Steps:
    """Told by the dev stack (`devstack.progress.Progress`), by downloads, and by loads.

    Leaving it as a context manager takes the bar away.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._title: str | None = None
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("  {task.description:<10}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.percentage:3.0f} %"),
            rich.progress.TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._next_percent: dict[str, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def begin(self, title: str) -> None:
        """Start a step; what is said from now on belongs to it."""
        self._title = title

    def say(self, line: str) -> None:
        """Show a line of the present step; a command without steps shows it as it is."""
        with self._lock:
            if self._title is not None:
                line = f"  {self._title:<{_TITLE_COLUMNS}} {line}"
                self._title = ""
            self._console.print(Text(line), soft_wrap=True)

    def downloaded(self, *, done_bytes: int, total_bytes: int) -> None:
        """Show how far the downloads of the stack are."""
        self.advanced("Kafka jars", done=done_bytes, total=total_bytes)

    def advanced(self, what: str, *, done: int, total: int) -> None:
        """Show how far something is: a bar, or a line every quarter. Unknown totals show nothing."""
        if not total:
            return
        if not self._bar.disable:
            with self._lock:
                if what not in self._tasks:
                    self._bar.start()
                    self._tasks[what] = self._bar.add_task(what)
                self._bar.update(self._tasks[what], completed=done, total=total)
                if done >= total:
                    self._bar.remove_task(self._tasks.pop(what))
            return
        percent = 100 * done // total
        with self._lock:
            due = percent >= self._next_percent.get(what, _PLAIN_STEP_PERCENT)
            self._next_percent[what] = percent - percent % _PLAIN_STEP_PERCENT + _PLAIN_STEP_PERCENT
        if due:
            self.say(f"{what}: {percent} %")
