"""Detached processes that later commands find again, and never mistake for another program.

Invariants:
    A recorded process counts as ours only while its pid and its start time both match.

Owner: whoever holds the stack's lock.
"""

import json
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

import psutil

from cortex_stream.clock import SystemClock

_RECORD: Final = "process.json"
_LOG: Final = "log"
# A step of the machine's clock moves all start times; pids do not come round again so soon.
_START_TOLERANCE_S: Final = 2.0
_POLL_S: Final = 0.02
# Starts "$@" in the background of a shell that ends at once, so that it belongs to nobody here:
# no zombie when it dies, no signal from this terminal.
_DETACH: Final = '"$@" >&2 </dev/null & echo $!'


def run(
    command: Sequence[str | Path],
    *,
    folder: Path | None = None,
    user: str | None = None,
    log: IO[bytes] | None = None,
    timeout_s: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run one of our own commands to its end, in a session of its own, without input.

    Args:
        command: program and arguments; no shell reads them.
        folder: where it runs; by default here.
        user: the system user to run as; only root may choose.
        log: takes its error output, which else is in the result.
        timeout_s: it is killed after so long, with `subprocess.TimeoutExpired`.
    """
    return subprocess.run(  # noqa: S603 (no word of it comes from outside)
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log or subprocess.PIPE,
        start_new_session=True,
        check=False,
        text=True,
        timeout=timeout_s,
        user=user,
        group=pwd.getpwnam(user).pw_gid if user else None,
        extra_groups=[] if user else None,
    )


def spawn(
    command: Sequence[str | Path], *, folder: Path, user: str | None = None
) -> psutil.Process | None:
    """Start `command` as `user`, detached, in `folder`; its output goes to `folder/log`.

    Returns:
        The process, or None when it has ended already.
    """
    with (folder / _LOG).open("wb") as log:
        shell = run(["/bin/sh", "-c", _DETACH, "sh", *command], folder=folder, user=user, log=log)
        shell.check_returncode()
    try:
        process = psutil.Process(int(shell.stdout))
        record = {"pid": process.pid, "created_s": process.create_time()}
    except psutil.NoSuchProcess:
        return None
    unfinished = folder / f"{_RECORD}.new"
    unfinished.write_text(json.dumps(record), encoding="utf-8")
    unfinished.replace(folder / _RECORD)
    return process


def find(folder: Path) -> psutil.Process | None:
    """Return the running process that `spawn` started in `folder`, or None."""
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        process = psutil.Process(record["pid"])
        age_s = abs(process.create_time() - record["created_s"])
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None
    return process if age_s < _START_TOLERANCE_S and alive(process) else None


def alive(process: psutil.Process) -> bool:
    """Tell whether it runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def stop(process: psutil.Process, *, with_signal: signal.Signals, patience_s: float) -> bool:
    """End the process and wait for its end.

    Returns:
        Whether it ended by itself; False when it had to be killed after `patience_s`.
    """
    for number in (with_signal, signal.SIGKILL):
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            return True
        clock = SystemClock()
        until_s = clock.monotonic_s() + patience_s
        while clock.monotonic_s() < until_s:
            if not alive(process):
                return number == with_signal
            time.sleep(_POLL_S)
    return False


def last_lines(folder: Path, *, count: int = 12) -> str:
    """Return the end of what the process in `folder` printed."""
    log = folder / _LOG
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"  {line}" for line in lines[-count:])


def is_root() -> bool:
    """Tell whether this process runs as root."""
    return os.geteuid() == 0
