"""Suspend another process, and know that it is: the kernel stops its threads one by one."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LIMIT_S = 10.0
_PAUSE_S = 0.001


def suspend(pid: int | None) -> None:
    """Send SIGSTOP and return once every thread stands still.

    A signal is only sent when `kill` returns: on a busy machine a process of many threads, like
    Kafka, goes on for tens of milliseconds, long enough to answer one more request.
    """
    assert pid is not None, "the service does not run"
    os.kill(pid, signal.SIGSTOP)
    end_s = time.monotonic() + _LIMIT_S
    while not _stands_still(pid):
        assert time.monotonic() < end_s, f"process {pid} did not stop within {_LIMIT_S:g} s"
        time.sleep(_PAUSE_S)


def resume(pid: int | None) -> None:
    """Let a suspended process go on."""
    assert pid is not None, "the service does not run"
    os.kill(pid, signal.SIGCONT)


@contextmanager
def suspended(pid: int | None) -> Iterator[None]:
    """Suspend the process for the time of the block: its connections stay open, and mute."""
    try:
        suspend(pid)
        yield
    finally:
        resume(pid)


def _stands_still(pid: int) -> bool:
    try:
        stats = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):  # a thread has just ended
        return False
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)
