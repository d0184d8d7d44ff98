import datetime as dt
import json
from pathlib import Path

from cortex_stream.loadtest.report import Report, describe_machine, describe_tokens

REPORT = Report(
    profile="throughput",
    verdict="Fast enough.",
    passed=True,
    summary={"ratio": 0.6543, "missing": 0},
    runs=[{"side": "raw", "texts/s": 1234.5}, {"side": "kafka", "texts/s": 800.0}],
    method={"seed": 7},
)


def test_a_report_is_saved_for_people_and_for_programs(tmp_path: Path) -> None:
    page = REPORT.save(tmp_path / "results", date=dt.date(2026, 1, 31))

    assert page == tmp_path / "results" / "2026-01-31-throughput.md"
    text = page.read_text(encoding="utf-8")
    assert "| ratio | 0.654 |" in text
    assert "| kafka | 800.000 |" in text
    assert "| seed | 7 |" in text
    content = json.loads(page.with_suffix(".json").read_bytes())
    assert content["summary"] == {"ratio": 0.6543, "missing": 0}
    assert content["passed"] is True


def test_a_report_without_runs_has_no_empty_table() -> None:
    report = Report("p", "v", passed=False, summary={"a": 1}, runs=[], method={})

    assert "## Runs" not in report.to_markdown()


def test_the_machine_is_described_by_what_figures_depend_on() -> None:
    machine = describe_machine()

    assert "commit" in str(machine["cortex-stream"])
    assert "cores" in str(machine["CPU"])
    assert "onnxruntime" in str(machine["packages"])


def test_tokens_are_described_by_mean_and_tail() -> None:
    assert describe_tokens([*range(1, 101)]) == "mean 50.5, p95 95, max 100"
