"""What a process costs: processor time and memory, children included."""

from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a process and all that it started. Shared pages count once per process."""

    cpu_s: float
    rss_bytes: int


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
