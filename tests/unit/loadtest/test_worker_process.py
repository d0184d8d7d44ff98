import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cortex_stream.errors import OperatorError
from cortex_stream.loadtest.measure import usage
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
