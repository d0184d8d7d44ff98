"""Rounds that are kept: what the table says of them, and what replaces what."""

import json
from dataclasses import replace
from pathlib import Path

from tests.chaos.checker import Verdict
from tests.chaos.results import FOLDER, page, save
from tests.chaos.run import Round

GOOD = Verdict(
    {"I1": []},
    {"records": 100, "lost": 0, "kills": 10, "repeated": 3, "may_repeat": 5, "recovery_s": 1.5},
)
ROUND = Round("F01", "what", 1, Path(), 50.0, GOOD)


def rows(table: Path) -> list[list[str]]:
    """Return the cells of each fault's row."""
    lines = table.read_text(encoding="utf-8").splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("| F")
    ]


def test_seeds_of_a_fault_are_added_up_and_of_times_the_worst_is_shown(tmp_path: Path) -> None:
    slower = replace(GOOD, figures={**GOOD.figures, "recovery_s": 2.5})

    table = save([ROUND, replace(ROUND, seed=2, verdict=slower)], tmp_path)

    [row] = rows(table)
    assert row[2:5] == ["2", "20", "200"]
    assert row[8:12] == ["6 / 10", "2.5", "-", "holds"]


def test_a_round_stays_until_one_of_the_same_fault_and_seed_replaces_it(tmp_path: Path) -> None:
    save([ROUND, replace(ROUND, seed=2)], tmp_path)
    violated = replace(GOOD, violations={"I1": ["lost: r1"]})

    table = save([replace(ROUND, seed=2, verdict=violated)], tmp_path)

    kept = json.loads((tmp_path / "chaos-results.json").read_text(encoding="utf-8"))
    assert [(each["seed"], each["holds"], each["found"]) for each in kept] == [
        (1, True, []),
        (2, False, ["I1: lost: r1"]),
    ]
    assert rows(table)[0][11] == "**1 of 2 hold**"


def test_a_round_that_holds_only_when_it_is_repeated_says_so(tmp_path: Path) -> None:
    save([replace(ROUND, verdict=None, error="TimeoutError: ")], tmp_path)

    table = save([ROUND], tmp_path)

    assert rows(table)[0][11] == "holds, 1 only when repeated"


def test_a_round_that_broke_down_is_kept_with_its_error(tmp_path: Path) -> None:
    save([replace(ROUND, verdict=None, error="TimeoutError: ")], tmp_path)

    [kept] = json.loads((tmp_path / "chaos-results.json").read_text(encoding="utf-8"))
    assert (kept["holds"], kept["found"]) == (False, ["TimeoutError: "])


def test_the_table_in_the_documentation_was_written_from_the_rounds_beside_it() -> None:
    kept = json.loads((FOLDER / "chaos-results.json").read_text(encoding="utf-8"))

    table = (FOLDER / "chaos-results.md").read_text(encoding="utf-8")
    assert table == page(kept), "write it again: save([]) of tests/chaos/results.py"
