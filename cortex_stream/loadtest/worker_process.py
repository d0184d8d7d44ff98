"""A worker as a child of a command: started, waited for, stopped; its log in a file."""

import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import orjson
import psutil

from cortex_stream.clock import SystemClock
from cortex_stream.errors import OperatorError

_POLL_S: Final = 0.1
_PROBE_TIMEOUT_S: Final = 2.0
_STOP_PATIENCE_S: Final = 20.0  # draining has 5 s by default, then Kafka is told
_LOG_LINES: Final = 8


class WorkerProcess:
    """Runs `python -m agents` with this process's environment.

    Leaving it as a context manager stops the worker, unless `release` was called.

    Args:
        log: takes everything the worker prints.
        cores: it may use only so many; None: all that this process may use.
    """

    def __init__(self, *, log: Path, cores: int | None = None) -> None:
        self.log = log
        self._cores = cores
        self._process: subprocess.Popen[bytes] | None = None
        self._released = False

    def __enter__(self) -> Self:
        """Start it; it is not ready yet."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agents"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the command alone, which then stops it
            )
        process = psutil.Process(self._process.pid)
        if self._cores is not None and hasattr(process, "cpu_affinity"):  # not on macOS
            process.cpu_affinity((process.cpu_affinity() or [])[: self._cores])
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it, by force if it does not stop by itself."""
        if self._process is None or self._released:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        if self._process is None:
            raise RuntimeError("using a worker outside its context; this is a bug")
        return self._process.pid

    def release(self) -> None:
        """Let it run on when the context is left."""
        self._released = True

    def check(self) -> None:
        """Return while it runs.

        Raises:
            OperatorError: it has ended; the text shows the end of its log.
        """
        if self._process is not None and self._process.poll() is not None:
            raise self._failed(f"it ended with exit code {self._process.returncode}")

    def wait_ready(self, *, patience_s: float = 60.0) -> str:
        """Wait until it takes work; return the address of its status page.

        Raises:
            OperatorError: it ended, or was not ready in time.
        """
        clock = SystemClock()
        until_s = clock.monotonic_s() + patience_s
        while clock.monotonic_s() < until_s:
            self.check()
            for port in self._listening_ports():
                if _answers(f"http://127.0.0.1:{port}/readyz"):
                    return f"http://127.0.0.1:{port}/"
            time.sleep(_POLL_S)
        raise self._failed(f"it was not ready after {patience_s:g} s")

    def _listening_ports(self) -> list[int]:
        try:
            connections = psutil.Process(self.pid).net_connections(kind="tcp")
        except psutil.NoSuchProcess:
            return []
        return [each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN]

    def _failed(self, what: str) -> OperatorError:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [error for line in lines if (error := _error_or_none(line)) is not None]
        end = "\n".join(f"  {line}" for line in (errors or lines)[-_LOG_LINES:])
        return OperatorError(f"running the worker: {what}. From its log {self.log}:\n{end}")


def _error_or_none(line: str) -> str | None:
    """Return what a line of the worker's log says for people, if it tells of an error."""
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if entry.get("level") not in {"error", "critical"}:
        return None
    exception = str(entry.get("exception", "")).splitlines()[-1:]
    details = [entry.get("message"), entry.get("repair"), *exception]
    return ": ".join([str(entry.get("event")), *(str(each) for each in details if each)])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_TIMEOUT_S):  # noqa: S310 (loopback)
            return True
    except (OSError, urllib.error.URLError):  # refused, or 503: not ready
        return False
