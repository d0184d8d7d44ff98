"""Models run without anything being reported to anybody."""

import subprocess
import sys
from pathlib import Path

from cortex_stream.environment import subprocess_environment
from tests.tiny_onnx import tiny_onnx

OPEN = (
    "import sys; from pathlib import Path; from cortex_stream.inference.session import open_session;"
    "open_session(Path(sys.argv[1]), wanted='cpu', output='last_hidden_state')"
)


def test_a_session_leaves_no_device_id_and_no_queue_of_reports(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(tiny_onnx())
    home = tmp_path / "home"
    home.mkdir()
    switches = ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")  # only our own may be what does it
    environment = subprocess_environment(HOME=str(home))
    for name in switches:
        environment.pop(name, None)

    subprocess.run(
        [sys.executable, "-c", OPEN, str(model)],
        env=environment,
        check=True,
        timeout=60,
    )

    assert list(home.rglob("*")) == []
