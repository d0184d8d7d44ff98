"""What `frozen=True` gave, without its price. That fields are read-only is for `make check`."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from cortex_stream.values import value


@value()
class Point:
    x: int
    y: int = 0


@value(eq=False)
class Mark:
    x: int


def test_values_with_equal_fields_are_equal_and_share_a_hash() -> None:
    assert Point(1) == Point(1, 0) != Point(1, 2)
    assert len({Point(1), Point(1, 0), Point(1, 2)}) == 2
    assert dataclasses.replace(Point(1), y=2) == Point(1, 2)


def test_without_eq_each_is_equal_to_itself_alone() -> None:
    mark = Mark(1)

    assert mark == mark  # noqa: PLR0124
    assert mark != Mark(1)
    assert len({mark, Mark(1)}) == 2


def test_a_value_has_no_room_for_other_fields() -> None:
    with pytest.raises(AttributeError):
        Point(1).z = 1  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_type_checker_refuses_to_set_a_field(tmp_path: Path) -> None:
    source = tmp_path / "sets.py"
    source.write_text(
        "from cortex_stream.record import OutgoingRecord\n"
        "record = OutgoingRecord('topic', None, None)\n"
        "record.topic = 'other'\n",
        encoding="utf-8",
    )

    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--config-file=",
            f"--cache-dir={tmp_path}/cache",
            str(source),
        ],
        capture_output=True,
        check=False,
        text=True,
        cwd=Path(__file__).parents[3],
    )

    assert 'Property "topic" defined in "OutgoingRecord" is read-only' in checked.stdout
