import datetime as dt
import json
import re
from pathlib import Path

import pytest

from cortex_stream.loadtest.machine import describe_machine, describe_tokens
from cortex_stream.loadtest.report import Bound, Goal, Report, shown

REPORT = Report(
    profile="throughput",
    question="Fast enough?",
    goals=[Goal("speed / raw", 0.6543, "at least", 0.5)],
    tables={"Passes": [{"side": "raw", "per s": 1234.5}, {"side": "ours", "per s": 800.0}]},
    method={"seed": 7},
    series={"ours": [{"second": 0, "sent": 3}]},
    charts={"two lanes": "<svg/>"},
)


@pytest.mark.parametrize(("stolen", "says"), [(0.1, False), (0.31, True)])
def test_a_report_says_that_it_was_disturbed(
    tmp_path: Path,
    stolen: float,
    says: bool,  # noqa: FBT001 (a parameter of the test)
) -> None:
    rows = [{"side": "ours", "stolen": 0.02}, {"side": "theirs", "stolen": stolen}]
    report = Report(
        "p", "q", goals=[], tables={"Passes": rows, "Others": [{"x": 1}]}, method={"seed": 7}
    )

    page = report.save(tmp_path, date=dt.date(2026, 1, 31))

    assert ("gave up to 0.31 cores to others" in page.read_text(encoding="utf-8")) is says
    assert bool(json.loads(page.with_suffix(".json").read_bytes())["disturbance"]) is says


def test_a_report_is_saved_for_people_and_for_programs(tmp_path: Path) -> None:
    page = REPORT.save(tmp_path / "results", date=dt.date(2026, 1, 31))

    assert page == tmp_path / "results" / "2026-01-31-throughput.md"
    text = page.read_text(encoding="utf-8")
    assert "| speed / raw | 0.654 | at least 0.5 | met |" in text
    assert "| ours | 800 |" in text
    assert "| seed | 7 |" in text
    assert "![two lanes](2026-01-31-throughput-two-lanes.svg)" in text
    assert (page.parent / "2026-01-31-throughput-two-lanes.svg").read_text("utf-8") == "<svg/>"
    content = json.loads(page.with_suffix(".json").read_bytes())
    assert content["goals"][0]["verdict"] == "met"
    assert content["series"] == {"ours": [{"second": 0, "sent": 3}]}
    assert content["passed"] is True


@pytest.mark.parametrize(
    ("measured", "bound", "verdict", "passed"),
    [
        (1.0, "at least", "met", True),
        (0.9, "at least", "missed", False),
        (1.0, "at most", "met", True),
        (1.1, "at most", "missed", False),
        (None, "at most", "not measured", True),
    ],
)
def test_a_report_passes_unless_a_goal_was_missed(
    measured: float | None,
    bound: Bound,
    verdict: str,
    passed: bool,  # noqa: FBT001 (a parameter of the test)
) -> None:
    goal = Goal("x", measured, bound, 1.0)

    report = Report("p", "q", goals=[goal], tables={}, method={})

    assert goal.verdict == verdict
    assert report.passed is passed


def test_empty_tables_leave_no_trace() -> None:
    report = Report("p", "q", goals=[], tables={"Passes": []}, method={"seed": 1})

    assert "Passes" not in report.to_markdown(charts={})


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (12345.6, "12,346"), (0.0123456, "0.0123"), (6000, "6,000")]
)
def test_figures_are_shown_as_people_read_them(value: object, text: str) -> None:
    assert shown(value) == text


def test_the_machine_is_described_by_what_figures_depend_on() -> None:
    machine = describe_machine()

    assert "commit" in str(machine["cortex-stream"])
    assert "cores" in str(machine["CPU"])
    assert "onnxruntime" in str(machine["packages"])
    assert re.match(r"[1-9]\d* ms for", str(machine["interpreter"]))
    assert re.search(r"takes \d+\.\d times", str(machine["waking up"]))


def test_tokens_are_described_by_mean_and_tail() -> None:
    assert describe_tokens([*range(1, 101)]) == "mean 50.5, p95 95, max 100"
