import os
import signal
import subprocess
from pathlib import Path

from cortex_stream.devstack.postgres import Postgres
from cortex_stream.devstack.progress import Quiet


def left_behind(folder: Path, *, pid: int) -> Path:
    """Write the pid file of a server that was killed."""
    pid_file = folder / "data" / "postmaster.pid"
    pid_file.parent.mkdir()
    pid_file.write_text(f"{pid}\n{folder / 'data'}\n", encoding="utf-8")
    (folder / "complete").touch()
    return pid_file


def test_a_pid_file_that_names_another_program_is_disowned(tmp_path: Path) -> None:
    pid_file = left_behind(tmp_path, pid=os.getpid())

    Postgres(tmp_path, port=1, user=None).prepare(Quiet())

    assert pid_file.read_text(encoding="utf-8") == f"4194305\n{tmp_path / 'data'}\n"


def test_a_pid_file_that_names_a_zombie_is_disowned(tmp_path: Path) -> None:
    with subprocess.Popen(
        ["/bin/sh", "-c", "read _", tmp_path / "data"], stdin=subprocess.PIPE
    ) as zombie:
        os.kill(zombie.pid, signal.SIGKILL)
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # dead, and not collected
        pid_file = left_behind(tmp_path, pid=zombie.pid)

        Postgres(tmp_path, port=1, user=None).prepare(Quiet())

        assert pid_file.read_text(encoding="utf-8").startswith("4194305\n")


def test_a_pid_file_that_names_the_living_server_stays(tmp_path: Path) -> None:
    with subprocess.Popen(
        ["/bin/sh", "-c", "read _", tmp_path / "data"], stdin=subprocess.PIPE
    ) as server:
        pid_file = left_behind(tmp_path, pid=server.pid)

        Postgres(tmp_path, port=1, user=None).prepare(Quiet())
        server.kill()

        assert pid_file.read_text(encoding="utf-8").startswith(f"{server.pid}\n")
