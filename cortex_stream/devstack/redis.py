"""Redis, with every write in its append-only file before it is answered."""

import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cortex_stream.devstack import programs
from cortex_stream.devstack.ports import HOST
from cortex_stream.devstack.progress import Progress


@dataclass(frozen=True, slots=True)
class Redis:
    """How Redis is run."""

    folder: Path
    port: int
    name: str = "redis"
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    worth_another_start: str | None = None

    def prepare(self, _progress: Progress, /) -> None:
        """Make the data folder."""
        (self.folder / "data").mkdir(exist_ok=True)

    def command(self) -> Sequence[str | Path]:
        """Return the server's command line."""
        options = {
            "--bind": HOST,
            "--port": str(self.port),
            "--dir": str(self.folder / "data"),
            "--appendonly": "yes",
            "--save": "",
            "--daemonize": "no",
        }
        return [programs.redis_server(), *(part for option in options.items() for part in option)]

    def answers(self) -> bool:
        """Tell whether it answers PING; while it loads its file it does not."""
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                connection.settimeout(1)
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        except OSError:
            return False

    def version(self) -> str:
        """Return such as `6.2.14`."""
        line = programs.first_line(programs.redis_server(), "--version")
        return line.partition("v=")[2].partition(" ")[0]
