"""One service of the stack: start it until it answers, stop it, see how it is."""

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

import psutil

from cortex_stream.clock import SystemClock
from cortex_stream.devstack import process
from cortex_stream.devstack.progress import Progress
from cortex_stream.errors import StackFailed

_START_PATIENCE_S: Final = 60.0
_STOP_PATIENCE_S: Final = 15.0
_POLL_S: Final = 0.05


class Recipe(Protocol):
    """What differs between the services."""

    @property
    def name(self) -> str:
        """The service's name."""
        ...

    @property
    def folder(self) -> Path:
        """Where its files are."""
        ...

    @property
    def port(self) -> int:
        """Where clients reach it."""
        ...

    @property
    def user(self) -> str | None:
        """The system user that it must run as; None: ours."""
        ...

    @property
    def stop_signal(self) -> signal.Signals:
        """What makes it stop cleanly and at once."""
        ...

    @property
    def worth_another_start(self) -> str | None:
        """A text in its log that means: what ended it will pass."""
        ...

    def prepare(self, progress: Progress, /) -> None:
        """Make everything ready that the next start needs. Idempotent, also when interrupted."""
        ...

    def command(self) -> Sequence[str | Path]:
        """Return the command that runs the service in the foreground."""
        ...

    def answers(self) -> bool:
        """Tell whether the service does its work. Takes at most two seconds."""
        ...

    def version(self) -> str:
        """Return the version that would run."""
        ...


class Condition(StrEnum):
    """How a service is."""

    RUNNING = "running"
    SILENT = "not answering"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One line of `stack status`."""

    service: str
    state: Condition
    pid: int | None
    port: int
    version: str
    memory_mb: int


class Service:
    """A recipe and the process that follows it."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    @property
    def name(self) -> str:
        """The service's name."""
        return self._recipe.name

    def process_or_none(self) -> psutil.Process | None:
        """Return the running process."""
        return process.find(self._recipe.folder)

    def start(self, progress: Progress) -> None:
        """Return once the service answers; start it unless it runs.

        Raises:
            StackFailed: it ended, or stayed silent; the text shows the end of its log.
        """
        recipe, clock = self._recipe, SystemClock()
        began_s = clock.monotonic_s()
        running, started = self.process_or_none(), False
        while True:
            if running is None or not process.alive(running):
                if started and not self._may_try_again():
                    raise self._failed("it ended")
                recipe.folder.mkdir(parents=True, exist_ok=True)
                recipe.prepare(progress)
                if not started:  # downloads do not count
                    began_s = clock.monotonic_s()
                running = process.spawn(recipe.command(), folder=recipe.folder, user=recipe.user)
                started = True
            elif recipe.answers():
                break
            if clock.monotonic_s() - began_s > _START_PATIENCE_S:
                raise self._failed(f"it does not answer after {_START_PATIENCE_S:.0f} s")
            time.sleep(_POLL_S)
        if started:
            took_s = clock.monotonic_s() - began_s
            progress.say(
                f"{recipe.name} {recipe.version()} ready on {recipe.port} ({took_s:.1f} s)"
            )

    def stop(self, progress: Progress) -> None:
        """Return once the process has ended. Idempotent."""
        running = self.process_or_none()
        if running is None:
            return
        clean = process.stop(
            running, with_signal=self._recipe.stop_signal, patience_s=_STOP_PATIENCE_S
        )
        if process.alive(running):
            raise StackFailed(f"stopping {self.name}: pid {running.pid} cannot be killed")
        progress.say(f"{self.name} stopped" if clean else f"{self.name} killed: it did not stop")

    def status(self) -> ServiceStatus:
        """Ask the service how it is."""
        running = self.process_or_none()
        condition = Condition.STOPPED
        if running is not None:
            condition = Condition.RUNNING if self._recipe.answers() else Condition.SILENT
        return ServiceStatus(
            service=self.name,
            state=condition,
            pid=running.pid if running else None,
            port=self._recipe.port,
            version=self._recipe.version(),
            memory_mb=_memory_mb(running) if running else 0,
        )

    def _may_try_again(self) -> bool:
        text = self._recipe.worth_another_start
        return text is not None and text in process.last_lines(self._recipe.folder)

    def _failed(self, what: str) -> StackFailed:
        folder = self._recipe.folder
        return StackFailed(
            f"starting {self.name}: {what}. The end of {folder / 'log'}:\n"
            + process.last_lines(folder),
            repair="cortex-stream stack up, again; if that fails too: cortex-stream stack wipe",
        )


def _memory_mb(running: psutil.Process) -> int:
    """Return the resident memory of the process and its children; shared pages count twice."""
    total_bytes = 0
    try:
        for each in (running, *running.children()):
            total_bytes += each.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # it ended while we looked
    return round(total_bytes / 1e6)
