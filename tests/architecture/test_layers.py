"""The import rules of pyproject.toml hold, and would notice if they did not."""

import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ("agents", "cortex_stream", "schemas", "topics")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [tool, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_no_module_imports_upward_or_across(repository: Path) -> None:
    report = lint_imports(repository)

    assert report.returncode == 0, report.stdout + report.stderr


def test_an_upward_import_is_noticed(repository: Path, tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(repository / package, tmp_path / package)
    shutil.copy(repository / "pyproject.toml", tmp_path)
    with (tmp_path / "cortex_stream" / "clock.py").open("a", encoding="utf-8") as clock:
        clock.write("\nimport agents\n")

    report = lint_imports(tmp_path)

    assert report.returncode == 1
    assert "cortex_stream.clock -> agents" in report.stdout
