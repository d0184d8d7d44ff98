"""The four top-level names are ours, typed and shipped, and the dependencies stay lean."""

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

PACKAGES = ("agents", "cortex_stream", "schemas", "topics")


@pytest.fixture(scope="module")
def pyproject(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


def names(requirements: list[str]) -> set[str]:
    return {Requirement(text).name for text in requirements}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_top_level_name_means_our_package(package: str, repository: Path, tmp_path: Path) -> None:
    # A fresh, isolated interpreter: pytest's own sys.path would always find the repository first.
    find = f"import importlib.util; print(importlib.util.find_spec({package!r}).origin)"

    origin = subprocess.run(
        [sys.executable, "-I", "-c", find], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.strip()

    assert Path(origin) == repository / package / "__init__.py"


def test_the_wheel_holds_the_four_packages(pyproject: dict[str, Any]) -> None:
    wheel = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]

    assert sorted(wheel["packages"]) == sorted(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_tells_type_checkers_that_it_is_typed(package: str, repository: Path) -> None:
    assert (repository / package / "py.typed").is_file()


def test_no_index_would_accept_the_project(pyproject: dict[str, Any]) -> None:
    assert "Private :: Do Not Upload" in pyproject["project"]["classifiers"]


def test_the_command_starts_from_where_the_project_says() -> None:
    (command,) = entry_points(group="console_scripts", name="cortex-stream")

    assert callable(command.load())


def test_the_core_brings_no_runtime_of_models(pyproject: dict[str, Any]) -> None:
    heavy = {"onnxruntime", "onnxruntime-gpu", "torch", "transformers"}

    assert names(pyproject["project"]["dependencies"]) & heavy == set()


def test_cpu_and_gpu_have_nothing_in_common(pyproject: dict[str, Any]) -> None:
    extras = pyproject["project"]["optional-dependencies"]

    cpu, gpu = names(extras["cpu"]), names(extras["gpu"])

    assert cpu == {"onnxruntime"}
    assert gpu == {"onnxruntime-gpu"}
