"""The image can be built from what is in the repository; its steps are replayed without Docker."""

import fnmatch
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cortex_stream.environment import subprocess_environment
from cortex_stream.settings.tree import Settings


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of a Dockerfile."""

    stage: str
    verb: str
    text: str


@pytest.fixture(scope="module")
def steps(repository: Path) -> list[Step]:
    lines = (repository / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if line.strip() and not line.startswith("#"))
    found: list[Step] = []
    stage = ""
    for line in text.replace("\\\n", " ").splitlines():
        verb, _, rest = line.partition(" ")
        if verb == "FROM":
            stage = rest.split()[-1]
        found.append(Step(stage, verb, rest.strip()))
    return found


def texts(steps: list[Step], verb: str, stage: str = "worker") -> list[str]:
    return [step.text for step in steps if step.verb == verb and step.stage == stage]


def copies(steps: list[Step], stage: str, extra: str = "cpu") -> list[tuple[str, str]]:
    """Return what a stage copies from the repository: (source, destination)."""
    pairs = [text.replace("${EXTRA}", extra).split() for text in texts(steps, "COPY", stage)]
    return [(pair[0], pair[1]) for pair in pairs if not pair[0].startswith("--from")]


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_what_is_copied_exists_and_enters_the_build_context(
    extra: str, steps: list[Step], repository: Path
) -> None:
    ignore = (repository / ".dockerignore").read_text(encoding="utf-8").splitlines()
    admitted = [line[1:] for line in ignore if line.startswith("!")]

    sources = [
        source for stage in ("builder", "worker") for source, _ in copies(steps, stage, extra)
    ]

    assert len(sources) == 5
    for source in sources:
        assert (repository / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in admitted), source


def test_the_process_is_nobody_on_the_host_and_starts_a_worker(steps: list[Step]) -> None:
    assert texts(steps, "USER")[-1] == "10001:10001"
    assert json.loads(texts(steps, "ENTRYPOINT")[-1]) == ["python", "-m", "cortex_stream"]
    assert json.loads(texts(steps, "CMD")[-1]) == ["worker"]


def test_the_health_check_asks_the_port_that_a_worker_listens_on(steps: list[Step]) -> None:
    port = Settings.model_fields["web"].get_default().port

    (check,) = texts(steps, "HEALTHCHECK")

    assert f"127.0.0.1:{port}/livez" in check
    assert texts(steps, "EXPOSE") == [str(port)]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_steps_of_the_image_give_a_working_installation(
    steps: list[Step], repository: Path, tmp_path: Path
) -> None:
    # Given the image's folders, in an empty place
    build, app, venv = tmp_path / "build", tmp_path / "app", tmp_path / "venv"
    build.mkdir()
    app.mkdir()
    outside = subprocess_environment(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")

    # When the builder's steps run, and the worker's folders are copied
    for source, target in copies(steps, "builder"):
        shutil.copy(repository / source, build / target)
    for command in texts(steps, "RUN", "builder"):
        run(["sh", "-ec", command.replace("/opt/venv", str(venv))], build, outside)
    for source, target in copies(steps, "worker"):
        shutil.copytree(
            repository / source, app / target, ignore=shutil.ignore_patterns("__pycache__")
        )

    # Then the entry point answers, and a worker's modules need nothing that only developers have
    image = {
        "PATH": str(venv / "bin"),
        "HOME": str(tmp_path),
        **dict(
            pair.split("=", 1) for pair in shlex.split(texts(steps, "ENV")[0]) if "PYTHON" in pair
        ),
    }
    entry = json.loads(texts(steps, "ENTRYPOINT")[-1])
    assert "worker" in run([venv / "bin" / entry[0], *entry[1:], "--help"], app, image)
    everything = (
        "import importlib, pkgutil, agents, cortex_stream.bootstrap\n"
        "for module in pkgutil.iter_modules(agents.__path__, 'agents.'):\n"
        "    if not module.name.endswith('__main__'): importlib.import_module(module.name)"
    )
    run([venv / "bin" / "python", "-c", everything], app, image)
    assert not list(app.rglob("__pycache__"))


def run(command: list[str | Path], folder: Path, environment: dict[str, str]) -> str:
    """Run to the end and return what was printed; fail with it otherwise."""
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
