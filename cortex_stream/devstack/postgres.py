"""PostgreSQL with pgvector, run as `nobody` when we are root since it refuses to be root."""

import shutil
import signal
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from cortex_stream.devstack import process, programs
from cortex_stream.devstack.ports import HOST
from cortex_stream.devstack.progress import Progress
from cortex_stream.errors import StackFailed

_NOBODYS_PID: Final = (1 << 22) + 1  # above what any system gives away


@dataclass(frozen=True, slots=True)
class Postgres:
    """How PostgreSQL is run."""

    folder: Path
    port: int
    name: str = "postgres"
    user: str | None = "nobody" if process.is_root() else None
    stop_signal: signal.Signals = signal.SIGINT  # a fast shutdown: clients are sent away
    # Children of a killed server need a moment to notice.
    worth_another_start: str | None = "shared memory block"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def prepare(self, progress: Progress, /) -> None:
        """Create the database files unless they are complete."""
        if self.user is not None:
            for place in (programs.postgres("postgres"), self._data):
                _let_through(place, user=self.user, progress=progress)
        complete = self.folder / "complete"
        if complete.exists():
            self._disown_pid_file()
            return
        if self._data.exists():  # an interrupted attempt
            shutil.rmtree(self._data)
        self._data.mkdir(mode=0o700)
        if self.user is not None:
            shutil.chown(self._data, self.user)
        made = process.run(
            [
                *(programs.postgres("initdb"), "-D", self._data, "-U", "postgres", "--auth=trust"),
                *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin"),
                *("--builtin-locale=C.UTF-8", "--no-instructions", "--no-sync"),
            ],
            folder=self.folder,
            user=self.user,
        )
        if made.returncode != 0:
            raise StackFailed(f"creating the database in {self._data}:\n{made.stderr.strip()}")
        complete.touch()

    def command(self) -> Sequence[str | Path]:
        """Return the server's command line."""
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",  # a path to a socket is limited to 107 bytes
        }
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        return [programs.postgres("postgres"), "-D", self._data, *options]

    def answers(self) -> bool:
        """Tell whether it takes SQL. The first SQL it takes creates the extension `vector`."""
        client = (
            programs.postgres("psql"),
            "-X",
            "-q",
            "-h",
            HOST,
            "-p",
            str(self.port),
            "-U",
            "postgres",
        )
        try:
            done = process.run(
                [*client, "-d", "postgres", "-c", "CREATE EXTENSION IF NOT EXISTS vector"],
                timeout_s=2,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def version(self) -> str:
        """Return such as `18.4`."""
        return programs.first_line(programs.postgres("postgres"), "--version").rpartition(" ")[2]

    def _disown_pid_file(self) -> None:
        """Let PostgreSQL see that the server which left its pid file behind is dead.

        It takes any process with that pid for the server: another program, or a zombie where
        nobody collects them, as in many containers. The file itself must stay: through it
        PostgreSQL finds children of the dead server that still write.
        """
        pid_file = self._data / "postmaster.pid"
        try:
            pid, newline, rest = pid_file.read_text(encoding="utf-8").partition("\n")
        except FileNotFoundError:
            return
        try:
            server = psutil.Process(int(pid))
            alive = process.alive(server) and str(self._data) in server.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # ours we may look at
            alive = False
        if not alive:
            pid_file.write_text(f"{_NOBODYS_PID}{newline}{rest}", encoding="utf-8")


def _let_through(place: Path, *, user: str, progress: Progress) -> None:
    """Let everybody walk (not look) through the folders above `place`, as root alone may say."""
    for folder in place.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
            progress.say(f"chmod o+x {folder}: PostgreSQL runs as {user} and must pass")
