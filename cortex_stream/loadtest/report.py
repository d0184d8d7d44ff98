"""What a benchmark says: figures, and everything one needs to know to believe or repeat them."""

import datetime as dt
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import orjson

from cortex_stream.loadtest.ledger import percentile
from cortex_stream.registry.store import ModelVersion
from cortex_stream.version import VERSION

_PACKAGES: Final = ("onnxruntime", "tokenizers", "numpy", "aiokafka", "faust-streaming")

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Report:
    """One benchmark.

    Attributes:
        profile: names the file: `throughput`, `soak`.
        verdict: one sentence with the figure that counts.
        passed: whether it reaches its goal.
        summary: figure by name.
        runs: what was measured, one row each, all with the same names.
        method: how, where, with what.
    """

    profile: str
    verdict: str
    passed: bool
    summary: Row
    runs: Sequence[Row]
    method: Row

    def to_json(self) -> bytes:
        """Return the whole report, indented."""
        content = {
            "profile": self.profile,
            "verdict": self.verdict,
            "passed": self.passed,
            "summary": self.summary,
            "runs": self.runs,
            "method": self.method,
        }
        return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def to_markdown(self) -> str:
        """Return the report as a page."""
        parts = [
            f"# Benchmark: {self.profile}",
            self.verdict,
            _table(["figure", "value"], [[k, _shown(v)] for k, v in self.summary.items()]),
        ]
        if self.runs:
            rows = [[_shown(value) for value in run.values()] for run in self.runs]
            parts += ["## Runs", _table(list(self.runs[0]), rows)]
        method = [[name, _shown(value)] for name, value in self.method.items()]
        parts += ["## Method", _table(["what", "value"], method)]
        return "\n\n".join(parts) + "\n"

    def save(self, folder: Path, *, date: dt.date) -> Path:
        """Write `<date>-<profile>.json` and `.md`; return the latter. Replaces those of the day."""
        folder.mkdir(parents=True, exist_ok=True)
        page = folder / f"{date.isoformat()}-{self.profile}.md"
        page.with_suffix(".json").write_bytes(self.to_json())
        page.write_text(self.to_markdown(), encoding="utf-8")
        return page


def describe_machine() -> dict[str, object]:
    """Return what the figures depend on apart from the benchmark itself."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    return {
        "cortex-stream": f"{VERSION}, commit {_commit()}",
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": versions,
        "broker": "Apache Kafka on the same machine and cores, one node, acks=all, lz4",
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


def _shown(value: object) -> str:
    return f"{value:,.3f}" if isinstance(value, float) else str(value)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(header), ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
