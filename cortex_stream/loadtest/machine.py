"""What figures depend on apart from the benchmark itself: machine, versions, commit, model, texts."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import textwrap
import time
import timeit
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Final

from cortex_stream.loadtest.latency import percentile
from cortex_stream.registry.store import ModelVersion
from cortex_stream.version import VERSION

_PACKAGES: Final = ("onnxruntime", "tokenizers", "numpy", "aiokafka", "faust-streaming")
_PEER_PACKAGES: Final = ("quixstreams", "faststream")
_STORES: Final = 1_000_000
_GAP_S: Final = 0.01
_WAKES: Final = 50


def describe_machine() -> dict[str, object]:
    """Return what the figures depend on apart from the benchmark itself."""
    versions = [f"{name} {metadata.version(name)}" for name in _PACKAGES]
    for name in _PEER_PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return {
        "cortex-stream": f"{VERSION}, commit {_commit()}",
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "interpreter": f"{_interpreter_ms():.0f} ms for {_STORES:,} stores in a dict, by Python code",
        "waking up": f"Python code takes {_waking_factor():.1f} times the processor time after"
        f" {1000 * _GAP_S:.0f} ms of sleep",
        "packages": ", ".join(versions),
        "broker": "Apache Kafka on the same machine and cores, one node, acks=all, zstd",
    }


def describe_model(model: ModelVersion) -> str:
    """Return which model it is, without a doubt."""
    return f"{model.name}@{model.version}, {model.manifest.precision}, {model.digest}"


def describe_tokens(tokens: Sequence[int]) -> str:
    """Return how long the texts are, for people."""
    ascending = sorted(tokens)
    mean = sum(ascending) / len(ascending)
    return f"mean {mean:.1f}, p95 {percentile(ascending, 0.95):.0f}, max {ascending[-1]}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _interpreter_ms() -> float:
    """Return how long a loop takes that never leaves the interpreter: the least of several passes."""
    loop = f"for number in range({_STORES}): stores[number & 255] = number"
    return 1000 * min(timeit.repeat(loop, "stores = {}", repeat=5, number=1))


def _waking_factor() -> float:
    """Return how many times the processor time the same work takes after a sleep.

    A record that comes alone finds the machine like that. What else it costs is not in it.
    """
    asleep, awake = _work_s(_GAP_S), _work_s(0.0)
    return asleep / awake


def _work_s(gap_s: float) -> float:
    """Return the processor time of some Python code after a pause, the median of several."""
    spent_s = []
    for number in range(_WAKES):
        time.sleep(gap_s)
        began_s = time.thread_time()
        text = json.dumps({"id": str(number), "texts": ["some words of a text"] * 10})
        lines = textwrap.wrap(json.loads(text)["texts"][0], 10)
        _ = hashlib.sha256(" ".join(sorted(lines)).encode()).hexdigest()
        spent_s.append(time.thread_time() - began_s)
    return median(spent_s)


def _commit() -> str:
    """Return the commit of the source tree, with `+` when files differ from it."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    here = Path(__file__).parent
    found = [
        subprocess.run(  # noqa: S603 (git, fixed arguments)
            [git, *arguments], cwd=here, capture_output=True, text=True, check=False
        )
        for arguments in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain"])
    ]
    if found[0].returncode != 0:
        return "unknown"
    return found[0].stdout.strip() + ("+" if found[1].stdout else "")
