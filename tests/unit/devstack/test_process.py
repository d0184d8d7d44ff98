import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cortex_stream.devstack import process

IGNORES_TERM = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[str], psutil.Process]]:
    """Start shell scripts that end with the test."""
    running: list[psutil.Process] = []

    def start(script: str) -> psutil.Process:
        found = process.spawn(["/bin/sh", "-c", script], folder=tmp_path)
        assert found is not None
        running.append(found)
        return found

    yield start
    for each in running:
        process.stop(each, with_signal=signal.SIGKILL, patience_s=5)


def wait_for_line(folder: Path, line: str) -> None:
    until_s = time.monotonic() + 5
    while line not in process.last_lines(folder):
        assert time.monotonic() < until_s, process.last_lines(folder)


def test_a_spawned_process_is_found_again(
    started: Callable[[str], psutil.Process], tmp_path: Path
) -> None:
    spawned = started("exec sleep 60")

    assert process.find(tmp_path) == spawned


def test_a_spawned_process_is_nobodys_child_and_leads_no_terminal(
    started: Callable[[str], psutil.Process],
) -> None:
    spawned = started("exec sleep 60")

    assert spawned.ppid() != os.getpid()
    assert os.getsid(spawned.pid) != os.getsid(0)


def test_a_stopped_process_is_not_found(
    started: Callable[[str], psutil.Process], tmp_path: Path
) -> None:
    spawned = started("exec sleep 60")

    clean = process.stop(spawned, with_signal=signal.SIGTERM, patience_s=5)

    assert clean
    assert process.find(tmp_path) is None


def test_a_process_that_ignores_its_signal_is_killed(
    started: Callable[[str], psutil.Process], tmp_path: Path
) -> None:
    spawned = started(IGNORES_TERM)
    wait_for_line(tmp_path, "ready")

    clean = process.stop(spawned, with_signal=signal.SIGTERM, patience_s=0.2)

    assert not clean
    assert not process.alive(spawned)


def test_another_process_with_the_remembered_pid_is_not_ours(
    started: Callable[[str], psutil.Process], tmp_path: Path
) -> None:
    stranger = started("exec sleep 60")
    record = {"pid": stranger.pid, "created_s": stranger.create_time() - 3600}

    (tmp_path / "process.json").write_text(json.dumps(record), encoding="utf-8")

    assert process.find(tmp_path) is None


def test_the_output_of_both_streams_is_logged(
    started: Callable[[str], psutil.Process], tmp_path: Path
) -> None:
    started("echo out; echo err >&2; exec sleep 60")

    wait_for_line(tmp_path, "out")
    wait_for_line(tmp_path, "err")


def test_the_last_lines_of_a_log_are_the_last(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\ntwo\n\xffthree\n")

    assert process.last_lines(tmp_path, count=2) == "  two\n  �three"


def test_nothing_was_logged_where_nothing_ran(tmp_path: Path) -> None:
    assert process.last_lines(tmp_path) == ""
