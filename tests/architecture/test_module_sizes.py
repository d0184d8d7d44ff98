"""Files stay small enough to be read in one sitting."""

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

MAX_LINES = 400
MAX_MEDIAN_LINES = 150
PACKAGES = ("agents", "cortex_stream", "schemas", "topics")
EXCEPTIONS: dict[str, str] = {}  # path -> why this one may be longer


@pytest.fixture(scope="module")
def lines_of(repository: Path) -> dict[str, int]:
    return {
        str(path.relative_to(repository)): len(path.read_text(encoding="utf-8").splitlines())
        for package in PACKAGES
        for path in (repository / package).rglob("*.py")
    }


def test_no_module_is_longer_than_the_limit(lines_of: dict[str, int]) -> None:
    too_long = {path: n for path, n in lines_of.items() if n > MAX_LINES}

    assert set(too_long) == set(EXCEPTIONS), f"longer than {MAX_LINES} lines: {too_long}"


def test_the_typical_module_is_short(
    lines_of: dict[str, int], record_property: Callable[[str, object], None]
) -> None:
    median = statistics.median(n for path, n in lines_of.items() if "__init__" not in path)

    record_property("median_lines", median)
    assert median <= MAX_MEDIAN_LINES


def test_package_files_hold_a_docstring_only(repository: Path) -> None:
    inits = [path for package in PACKAGES for path in (repository / package).rglob("__init__.py")]

    with_code = [str(path) for path in inits if not _is_one_docstring(path)]

    assert inits
    assert with_code == []


def _is_one_docstring(path: Path) -> bool:
    text = path.read_text(encoding="utf-8").strip()
    return text.startswith('"""') and text.endswith('"""') and text.count('"""') == 2
