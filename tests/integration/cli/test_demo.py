"""The demo as people run it: with nothing there before, and nothing there after."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.usefixtures("stack_programs"),
]

DEMO = [sys.executable, "-m", "cortex_stream", "demo"]


def left_running(folder: Path) -> list[str]:
    """Return the commands of processes that work in `folder` or were given files of it."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words = " ".join(process.info["cmdline"] or ())
        if process.info["pid"] == os.getpid():  # the test itself works there
            continue
        if str(folder) in words or str(process.info["cwd"] or "").startswith(str(folder)):
            found.append(words)
    return found


def test_the_demo_answers_everything_and_leaves_nothing(folder: Path) -> None:
    shown = subprocess.run(DEMO, capture_output=True, text=True, check=False, timeout=180)

    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "first result after" in shown.stdout
    assert "1 rejected, 1 expired" in shown.stdout
    for lane in ("critical", "high", "medium", "low"):
        assert f"\n {lane}" in shown.stdout
    answers = shown.stdout.partition("first result after")[2]
    assert max(map(len, answers.splitlines())) <= 80
    assert "\x1b" not in shown.stdout
    assert list(folder.iterdir()) == []
    assert left_running(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["redis", "topics", "worker     ready", "first result"])
def test_a_demo_that_is_interrupted_leaves_nothing(
    folder: Path, moment: str, number: signal.Signals
) -> None:
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        assert run.stdout is not None
        before = ""
        while moment not in before:
            before += (line := run.stdout.readline())
            assert line, f"ended before {moment!r}: {before}"

        run.send_signal(number)
        rest = run.stdout.read()

        assert run.wait(60) == 130, before + rest
    assert "Traceback" not in rest
    assert "interrupted: stopping and wiping" in rest
    assert list(folder.iterdir()) == []
    assert left_running(folder) == []


def test_a_demo_that_was_kept_can_be_gone_on_with_and_is_not_disturbed(folder: Path) -> None:
    kept = subprocess.run([*DEMO, "--keep"], capture_output=True, text=True, check=False)
    assert kept.returncode == 0, kept.stdout + kept.stderr
    pid = int(kept.stdout.partition("kill ")[2].partition(";")[0])
    try:
        again = subprocess.run(DEMO, capture_output=True, text=True, check=False)
        send = (
            'eval "$({0} stack env --name demo)" && {0} send embed "hello world" --wait'
        ).format(f"{sys.executable} -m cortex_stream")
        sent = subprocess.run(["/bin/sh", "-c", send], capture_output=True, text=True, check=False)
    finally:
        os.kill(pid, signal.SIGTERM)
        psutil.wait_procs([psutil.Process(pid)], timeout=20)
        wipe = [sys.executable, "-m", "cortex_stream", "stack", "wipe", "--name", "demo"]
        subprocess.run(wipe, check=True, capture_output=True)

    assert again.returncode == 1
    assert "repair: cortex-stream stack wipe --name demo" in again.stderr
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert "vector (384 numbers)" in sent.stdout
    assert left_running(folder) == []
