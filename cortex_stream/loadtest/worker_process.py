"""A worker as a child of a command: started, waited for, stopped; its log in a file."""

import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import orjson
import psutil

from cortex_stream.clock import SystemClock
from cortex_stream.environment import subprocess_environment
from cortex_stream.errors import OperatorError
from cortex_stream.interrupts import deferred_signals

_POLL_S: Final = 0.1
_PROBE_TIMEOUT_S: Final = 2.0
_STOP_PATIENCE_S: Final = 20.0  # draining has 5 s by default, then Kafka is told
_LOG_LINES: Final = 8


class WorkerProcess:
    """Runs `python -m agents`, or another command that answers requests.

    Leaving it as a context manager stops it, unless `release` was called.

    Args:
        log: takes everything the process prints.
        cores: it may use only so many; None: all that this process may use.
        command: what is run.
        environment: variables on top of this process's own.
    """

    def __init__(
        self,
        *,
        log: Path,
        cores: int | None = None,
        command: Sequence[str] = (sys.executable, "-m", "agents"),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        self._cores = cores
        self._command = command
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._released = False

    def __enter__(self) -> Self:
        """Start it; it is not ready yet."""
        try:
            with deferred_signals():
                self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it, by force if it does not stop by itself."""
        if not self._released:
            self.stop()

    def start(self) -> None:
        """Start it; it is not ready yet."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 (our own commands)
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=subprocess_environment(**self._environment),
                start_new_session=True,  # Ctrl-C reaches the command alone, which then stops it
            )
        process = psutil.Process(self._process.pid)
        if self._cores is not None and hasattr(process, "cpu_affinity"):  # not on macOS
            process.cpu_affinity((process.cpu_affinity() or [])[: self._cores])

    def stop(self) -> None:
        """Ask it to stop and wait; by force, children included, if it does not. Idempotent."""
        if self._process is None or self._process.poll() is not None:
            return
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()

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
        return self._wait(self._page_or_none, patience_s=patience_s)

    def wait_said(self, word: str, *, patience_s: float = 60.0) -> None:
        """Wait until it has printed a line that ends with this word.

        Raises:
            OperatorError: it ended, or did not print it in time.
        """

        def said() -> str | None:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            return next((line for line in lines if line.rstrip().endswith(word)), None)

        self._wait(said, patience_s=patience_s)

    def _wait(self, ready: Callable[[], str | None], *, patience_s: float) -> str:
        clock = SystemClock()
        until_s = clock.monotonic_s() + patience_s
        while clock.monotonic_s() < until_s:
            self.check()
            if (found := ready()) is not None:
                return found
            time.sleep(_POLL_S)
        raise self._failed(f"it was not ready after {patience_s:g} s")

    def _page_or_none(self) -> str | None:
        pages = [f"http://127.0.0.1:{port}/" for port in self._listening_ports()]
        return next((page for page in pages if _answers(f"{page}readyz")), None)

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
        return OperatorError(
            f"running {' '.join(self._command[1:3])}: {what}. From its log {self.log}:\n{end}"
        )


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
