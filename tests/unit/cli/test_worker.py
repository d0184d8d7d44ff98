import subprocess
import sys

from agents.faust_worker import ExitCode
from cortex_stream.environment import subprocess_environment


def test_a_wrong_setting_ends_the_command_with_the_code_that_no_supervisor_repeats() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cortex_stream", "worker"],
        env=subprocess_environment(CORTEX_KAFKA__STALL_TIMEOUT_S="-1"),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == ExitCode.MISCONFIGURED
    assert "CORTEX_KAFKA__STALL_TIMEOUT_S" in done.stderr
    assert "Traceback" not in done.stderr
