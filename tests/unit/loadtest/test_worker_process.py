import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cortex_stream.clock import SystemClock
from cortex_stream.errors import OperatorError
from cortex_stream.loadtest.meter import Meter, usage
from cortex_stream.loadtest.worker_process import WorkerProcess, _error_or_none


def test_a_worker_that_cannot_start_is_reported_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BROKERS", "nonsense")
    log = tmp_path / "deep" / "worker.log"

    with WorkerProcess(log=log) as worker, pytest.raises(OperatorError) as caught:
        worker.wait_ready(patience_s=30)

    assert "exit code 2" in str(caught.value)
    assert str(log) in str(caught.value)
    assert "KAFKA_BROKERS" in str(caught.value)


def test_of_a_log_the_errors_are_shown_in_plain_words() -> None:
    line = '{"level":"error","event":"worker.cannot_start","message":"no topic","repair":"make it"}'
    crash = '{"level":"critical","event":"crashed","exception":"Traceback\\n  x\\nNameError: gc"}'

    assert _error_or_none(line) == "worker.cannot_start: no topic: make it"
    assert _error_or_none(crash) == "crashed: NameError: gc"
    assert _error_or_none('{"level":"info","event":"Starting"}') is None
    assert _error_or_none("error: nonsense") is None


def test_leaving_the_block_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BROKERS", "127.0.0.1:1")

    with WorkerProcess(log=tmp_path / "log", cores=1) as worker:
        pid = worker.pid

    assert not psutil.pid_exists(pid)


def test_usage_counts_the_children_of_a_process() -> None:
    spin = "import time\nwhile time.process_time() < 0.3: pass\nprint('spun', flush=True)\ninput()"
    nested = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {spin!r}], stdin=subprocess.PIPE)\n"
        "input()\nchild.communicate(b'\\n')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", nested], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()

        used = usage(parent.pid)

        parent.communicate(b"\n")
    assert used.cpu_s >= 0.29
    assert used.rss_bytes > 2 * 5_000_000  # two interpreters


def test_usage_of_a_process_that_is_gone_is_an_error() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    with pytest.raises(psutil.NoSuchProcess):
        usage(ended.pid)


def test_a_peer_is_ready_when_it_has_said_so(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "import time; print('almost'); print('ready', flush=True); time.sleep(60)",
    ]

    with WorkerProcess(log=tmp_path / "log", command=command) as peer:
        peer.wait_said("ready", patience_s=20)
        pid = peer.pid

    assert not psutil.pid_exists(pid)


def test_a_process_gets_the_variables_of_its_own(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "import os; print(os.environ['CORTEX_TEST_OWN'], flush=True); input()",
    ]

    with (
        WorkerProcess(
            log=tmp_path / "log", command=command, environment={"CORTEX_TEST_OWN": "mine"}
        ) as started,
        pytest.raises(OperatorError, match="it ended"),
    ):
        started.wait_said("never", patience_s=20)

    assert "mine" in started.log.read_text(encoding="utf-8")


def test_a_meter_reads_all_along_and_sums_what_was_used(tmp_path: Path) -> None:
    spin = "import time\nwhile time.process_time() < 0.2: pass\nprint('spun', flush=True)\ntime.sleep(60)"
    with (
        WorkerProcess(log=tmp_path / "log", command=[sys.executable, "-c", spin]) as spinning,
        Meter(lambda: [spinning.pid], clock=SystemClock(), every_s=0.01) as meter,
    ):
        spinning.wait_said("spun", patience_s=20)

    assert 0.1 < meter.cpu_s < 2
    assert meter.peak_rss_bytes > 5_000_000
    assert len(meter.samples) > 3


@pytest.mark.parametrize("leaves", ["its end", "the list"])
def test_what_a_process_used_before_it_left_still_counts(tmp_path: Path, leaves: str) -> None:
    spin = "import time\nwhile time.process_time() < 0.2: pass\nprint('spun', flush=True)\ntime.sleep(60)"
    pids: list[int] = []
    with (
        WorkerProcess(log=tmp_path / "log", command=[sys.executable, "-c", spin]) as spinning,
        Meter(lambda: list(pids), clock=SystemClock(), every_s=0.01) as meter,
    ):
        spinning.wait_said("spun", patience_s=20)
        pids.append(spinning.pid)
        while not meter.samples[-1].usage.cpu_s:
            pass
        if leaves == "its end":
            spinning.stop()
        else:
            pids.clear()

    assert 0.1 < meter.cpu_s < 2
    assert meter.samples[-1].usage.rss_bytes == 0
