"""What the operations pages name exists, and what exists is named."""

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from cortex_stream.bootstrap.bounds import admission_bounds
from cortex_stream.settings.stages import WorkerSettings
from cortex_stream.settings.tree import Settings
from cortex_stream.telemetry import metrics
from topics import names
from topics.catalogue import CURRENT, Direction

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations"
METRICS = {
    metric._name: set(metric._labelnames)
    for metric in vars(metrics).values()
    if isinstance(metric, MetricWrapperBase)
}


def allowed(role: str, operation: str) -> set[str]:
    """Return the topics on which the page allows a role an operation."""
    page = (OPERATIONS / "permissions.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {role}\n")[1].split("\n## ")[0].split("| groups |")[0]
    patterns = [
        pattern
        for row in section.splitlines()
        if row.startswith("| `") and operation in re.split(r"[|,\s]+", row.split("|")[2])
        for pattern in re.findall(r"`([^`]+)`", row.split("|")[1])
    ]
    known = {spec.name for spec in CURRENT}
    assert all(any(fnmatchcase(name, pattern) for name in known) for pattern in patterns)
    return {name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)}


def linked_by(page: Path) -> set[Path]:
    """Return what the links of a page of this folder lead to, as paths; other files link nowhere."""
    if page.parent != OPERATIONS or page.suffix != ".md" or not page.exists():
        return set()
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    return {page.parent / target for target in targets}


def rules() -> list[dict[str, Any]]:
    loaded = yaml.safe_load((OPERATIONS / "alerts.example.yaml").read_text(encoding="utf-8"))
    [group] = loaded["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_a_worker_may_read_what_it_consumes_and_what_it_looks_up() -> None:
    stages = WorkerSettings().stages
    consumed = {topic for hosted in (stages, stages[1:]) for topic in _consumed(hosted)} | {
        names.ATTEMPTS,
        names.DEAD_LETTERS,
        names.AUDIT,
    }

    assert allowed("Worker", "Read") >= consumed


def _consumed(stages: tuple[Any, ...]) -> set[str]:
    return set(admission_bounds(Settings(worker=WorkerSettings(stages=stages))))


def test_a_worker_may_write_every_topic_that_the_catalogue_says_it_writes() -> None:
    written = {spec.name for spec in CURRENT if spec.written_by.startswith("Cortex Stream")}

    assert allowed("Worker", "Write") >= written


def test_clients_may_write_the_topics_that_come_in_and_no_internal_one() -> None:
    clients = allowed("Client", "Write") | allowed("Lake, Stream, Forge", "Write")

    assert clients >= {spec.name for spec in CURRENT if spec.direction is Direction.IN}
    assert not clients & {spec.name for spec in CURRENT if spec.direction is Direction.INTERNAL}


def test_every_topic_that_goes_out_has_a_reader() -> None:
    readers = allowed("Client", "Read") | allowed("Lake, Stream, Forge", "Read")
    readers |= allowed("`cortex-stream dead-letters`", "Read")

    assert readers >= {spec.name for spec in CURRENT if spec.direction is Direction.OUT}


def test_the_topics_command_may_change_every_topic() -> None:
    assert allowed("`cortex-stream topics`", "AlterConfigs") == {spec.name for spec in CURRENT}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_asks_metrics_that_exist_and_names_a_page_that_exists(
    rule: dict[str, Any],
) -> None:
    asked = re.findall(r"\b(cortex_\w+)(?:\{([^}]*)\})?", rule["expr"])
    for name, selected in asked:
        metric = re.sub(r"_(?:total|bucket|count|sum)$", "", name)
        assert set(re.findall(r"(\w+)=", selected)) <= METRICS[metric], name
    text = rule["annotations"]["summary"]
    shown = set(re.findall(r"\$labels\.(\w+)", text)) - {"instance"}
    of_asked = [METRICS[re.sub(r"_(?:total|count)$", "", name)] for name, _ in asked]
    assert shown <= set().union(*of_asked)
    assert (OPERATIONS / rule["annotations"]["page"]).is_file()


def test_the_index_leads_to_every_page() -> None:
    reached: set[Path] = set()
    ahead = {OPERATIONS / "README.md"}
    while ahead:
        reached |= ahead
        ahead = {target.resolve() for page in ahead for target in linked_by(page)} - reached

    assert {page for page in OPERATIONS.iterdir() if page not in reached} == set()


@pytest.mark.parametrize("page", sorted(OPERATIONS.glob("*.md")), ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert {target for target in linked_by(page) if not target.exists()} == set()


def test_the_index_quotes_the_reasons_of_readyz_as_the_worker_gives_them() -> None:
    index = (OPERATIONS / "README.md").read_text(encoding="utf-8")
    sources = ("cortex_stream/bootstrap/status.py", "agents/status.py")
    source = "".join((OPERATIONS.parents[1] / each).read_text("utf-8") for each in sources)

    quoted = [
        reason
        for row in re.findall(r"^\| `/readyz` 503: (.*?) \|", index, re.MULTILINE)
        for reason in re.findall(r"\*(.+?)\*", row)
    ]
    given = re.findall(r'(?:reasons|obstacles)\.append\(f?"(.+?)[:"]', source)
    assert sorted(quoted) == sorted(given)
