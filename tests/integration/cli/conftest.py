"""The command line against real services, under topics of this module alone."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cortex_stream.cli.main import app
from cortex_stream.devstack.stack import Stack
from cortex_stream.loadtest.worker_process import WorkerProcess
from cortex_stream.registry.store import ModelVersion
from cortex_stream.settings.sections import ModelsSettings

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def environment(stack: Stack, model_settings: ModelsSettings) -> Iterator[Mapping[str, str]]:
    """What points the command line to the services, as `stack env` would; the topics exist."""
    variables = {
        **stack.environment(),
        "CORTEX_KAFKA__TOPIC_PREFIX": f"test-{secrets.token_hex(5)}",
        "CORTEX_MODELS__FOLDER": str(model_settings.folder),
        "CORTEX_WEB__PORT": "0",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        applied = CliRunner().invoke(app, ["topics", "apply"])
        assert applied.exit_code == 0, applied.output
        yield variables


@pytest.fixture
def run(environment: Mapping[str, str]) -> Run:  # noqa: ARG001 (it holds while the module runs)
    """Return what runs `cortex-stream <words>`."""
    return lambda *words, **more: CliRunner().invoke(app, words, **more)


@pytest.fixture(scope="module")
def worker(
    environment: Mapping[str, str],  # noqa: ARG001 (as above)
    pulled_models: Callable[[str], ModelVersion],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[WorkerProcess]:
    """A worker that takes the requests of this module."""
    pulled_models("minilm")
    with WorkerProcess(log=tmp_path_factory.mktemp("worker") / "log") as started:
        started.wait_ready()
        yield started


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a command that brings its own services."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
