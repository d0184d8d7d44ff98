"""What the documentation tells a supervisor is what the code does."""

import re
from pathlib import Path

import pytest
import yaml

from agents.faust_app import STOP_MARGIN_S
from agents.faust_worker import ExitCode
from cortex_stream.kafka.progress import NOTICE_S, Step
from cortex_stream.settings.kafka import KafkaSettings


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs/operations/supervision.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def longest_stop_s() -> float:
    default: float = KafkaSettings().drain_timeout_s
    return default + STOP_MARGIN_S


def test_every_exit_code_is_in_the_table_and_no_other(page: str) -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.MULTILINE)

    assert [(int(code), name) for code, name in rows] == [(each, each.name) for each in ExitCode]


def test_systemd_does_not_repeat_a_misconfigured_start_and_waits_for_the_drain(
    page: str, longest_stop_s: float
) -> None:
    unit = dict(re.findall(r"^(\w+)=(.+)$", page, re.MULTILINE))

    assert unit["Restart"] == "on-failure"
    assert int(unit["RestartPreventExitStatus"]) == ExitCode.MISCONFIGURED
    assert float(unit["TimeoutStopSec"]) > longest_stop_s


def test_kubernetes_waits_for_the_drain_and_asks_each_probe_its_own_question(
    page: str, longest_stop_s: float
) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    pod = yaml.safe_load(block)
    (worker,) = pod["containers"]

    assert pod["terminationGracePeriodSeconds"] > longest_stop_s
    assert worker["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert worker["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_compose_restarts_a_worker_and_waits_for_its_drain(
    repository: Path, longest_stop_s: float
) -> None:
    text = (repository / "docker-compose.yml").read_text(encoding="utf-8")
    worker = yaml.safe_load(text)["services"]["worker"]

    assert worker["restart"] == "unless-stopped"
    assert float(worker["stop_grace_period"].removesuffix("s")) > longest_stop_s


def test_the_timings_on_the_page_are_the_codes(page: str) -> None:
    rows = re.findall(r"^\| (.+) \| (\d+) s \|$", page, re.MULTILINE)
    order = (Step.ANSWER, Step.OUTCOME, Step.TAKE, Step.TURN, Step.COMMIT, Step.ASSIGN)

    assert [float(noticed_s) for _, noticed_s in rows] == [NOTICE_S[step] for step in order]
    assert f"({KafkaSettings().stall_timeout_s:g} s)" in page
