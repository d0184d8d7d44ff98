"""What processes cost: processor time and memory, children included.

Owner: `Meter` has a thread of its own, so that a driver's event loop is not held up by reading it.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

from cortex_stream.clock import Clock


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a process and all that it started. Shared pages count once per process."""

    cpu_s: float
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The usage at a moment.

    Attributes:
        at_ms: the moment, in Unix milliseconds.
        machine_cpu_s: what every process of the machine has used since it started.
        stolen_s: processor time that the hypervisor gave to others while ours wanted it; 0 where
            there is none.
    """

    at_ms: int
    usage: Usage
    machine_cpu_s: float
    stolen_s: float


def usage(pid: int) -> Usage:
    """Return what the process tree has used so far.

    Raises:
        psutil.NoSuchProcess: the process has ended.
    """
    process = psutil.Process(pid)
    times, rss_bytes = process.cpu_times(), process.memory_info().rss
    cpu_s = times.user + times.system + times.children_user + times.children_system
    for child in process.children(recursive=True):
        try:
            times = child.cpu_times()
            cpu_s += times.user + times.system
            rss_bytes += child.memory_info().rss
        except psutil.NoSuchProcess:
            continue  # it ended while we looked; its parent has its time if it was waited for
    return Usage(cpu_s, rss_bytes)


class Meter:
    """Reads the usage of process trees in steady steps while it is entered.

    Of a tree that has ended or left, the processor time that was last read still counts.

    Args:
        pids: gives the trees; asked at every step, for processes may join and leave.
    """

    def __init__(
        self, pids: Callable[[], Sequence[int]], *, clock: Clock, every_s: float = 0.5
    ) -> None:
        self.samples: list[Sample] = []
        self._pids = pids
        self._clock = clock
        self._every_s = every_s
        self._cpu_s: dict[int, float] = {}  # by process, as last read
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    def __enter__(self) -> Self:
        """Take the first sample and go on in a thread."""
        self._read()
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the last sample and stop."""
        self._stopped.set()
        self._thread.join()
        self._read()

    @property
    def cpu_s(self) -> float:
        """Processor time between the first and the last sample."""
        return self.samples[-1].usage.cpu_s - self.samples[0].usage.cpu_s

    @property
    def peak_rss_bytes(self) -> int:
        """The most memory that a sample found."""
        return max(sample.usage.rss_bytes for sample in self.samples)

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            self._read()

    def _used(self) -> Usage:
        rss_bytes = 0
        for pid in self._pids():
            with suppress(psutil.NoSuchProcess):
                found = usage(pid)
                self._cpu_s[pid] = found.cpu_s
                rss_bytes += found.rss_bytes
        return Usage(sum(self._cpu_s.values()), rss_bytes)

    def _read(self) -> None:
        used, machine = self._used(), psutil.cpu_times()
        busy_s = machine.user + machine.nice + machine.system
        stolen_s = getattr(machine, "steal", 0.0)  # Linux alone tells
        self.samples.append(Sample(self._clock.unix_ms(), used, busy_s, stolen_s))
