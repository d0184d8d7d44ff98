"""How much memory this process uses, and how much it may: the container's limit, or ours.

Source: Linux kernel documentation, "Control Group v2" and "Memory Resource Controller" (v1).
Owner: whoever calls `measure`; it reads a few small files, 0.1 ms in all.
"""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_GROUPS: Final = Path("/proc/self/cgroup")
_MOUNT: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """One limit and how far it is used.

    Attributes:
        source: whose limit: `container`, `setting` or `machine`.
    """

    used_bytes: int
    limit_bytes: int
    source: str

    @property
    def ratio(self) -> float:
        """Used of the limit."""
        return self.used_bytes / self.limit_bytes


@dataclass(frozen=True, slots=True)
class _Files:
    """Names of one version's files. `idle` is the key of what the kernel takes back when asked."""

    limit: str
    used: str
    idle: str


_V2: Final = _Files("memory.max", "memory.current", "inactive_file")
_V1: Final = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


class ProcessMemory:
    """Looks at the memory of this process and of the control groups it is in.

    A container's limit counts whatever is in the container, less files the kernel can forget; a
    limit of ours, or the machine's memory where there is none, counts this process alone.
    """

    def __init__(
        self, *, limit_bytes: int = 0, groups: Path = _GROUPS, mount: Path = _MOUNT
    ) -> None:
        self._limit_bytes = limit_bytes
        self._process = psutil.Process()
        self._machine_bytes = psutil.virtual_memory().total
        self._groups = list(_memory_groups(groups, mount))

    def measure(self) -> MemoryUse:
        """Return the limit that is nearest now."""
        used_bytes = self._process.memory_info().rss
        in_groups = (self._of_group(folder, files) for folder, files in self._groups)
        uses = [use for use in in_groups if use is not None]
        if self._limit_bytes:
            uses.append(MemoryUse(used_bytes, self._limit_bytes, "setting"))
        machine = MemoryUse(used_bytes, self._machine_bytes, "machine")
        return max(uses or [machine], key=lambda use: use.ratio)

    def _of_group(self, folder: Path, files: _Files) -> MemoryUse | None:
        """Return a group's limit and use; None where it has no limit below the machine's memory."""
        try:
            limit = (folder / files.limit).read_text().strip()
            if limit == "max" or not 0 < int(limit) < self._machine_bytes:
                return None
            used_bytes = int((folder / files.used).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such controller, or the group is gone
            return None
        return MemoryUse(max(0, used_bytes - int(stat.get(files.idle, 0))), int(limit), "container")


def give_back_free_memory() -> None:
    """Return free heap memory to the system, as glibc does not by itself. Blocks for about 25 ms.

    Measured after a flood: 280 MB become 132, where a garbage collection finds nothing to free.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc alone has it
        trim(0)


def _memory_groups(groups: Path, mount: Path) -> Iterator[tuple[Path, _Files]]:
    """Yield the folders of the process's groups and their parents, each of which may have a limit.

    Inside a container the path of the group may be the host's; its own group is the mount then.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, files = mount, _V2
        elif "memory" in controllers.split(","):
            root, files = mount / "memory", _V1
        else:
            continue
        folder = root / path.lstrip("/")
        while True:
            if (folder / files.limit).is_file():
                yield folder, files
            if folder == root:
                break
            folder = folder.parent
