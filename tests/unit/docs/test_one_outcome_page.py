"""What the page tells readers of outcomes to do in Python is right."""

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "operations" / "one-outcome.md"


@pytest.mark.parametrize(
    ("arriving", "kept"),
    [
        (["result"], "result"),
        (["result", "expired"], "result"),
        (["result", "dead_letter"], "result"),
        (["expired", "result"], "result"),
        (["dead_letter", "result", "expired"], "result"),
        (["rejected", "result"], "rejected"),
        (["result", "rejected"], "result"),
        (["expired", "dead_letter"], "expired"),
    ],
)
def test_of_the_outcomes_with_one_id_the_right_one_is_kept(arriving: list[str], kept: str) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 (the page's own example)
    outcomes: dict[str, dict[str, str]] = {}

    for kind in arriving:
        names["keep"](outcomes, {"id": "abc", "type": f"cortex.outcome.{kind}.v1"})

    assert outcomes["abc"]["type"] == f"cortex.outcome.{kept}.v1"
