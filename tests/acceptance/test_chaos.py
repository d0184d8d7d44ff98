"""Seven faults under load, each judged by a checker that shares no code with the worker.

`make chaos` injects them all, with as many seeds as you like: docs/operations/chaos.md.
"""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.broker import Services
from tests.chaos.faults import FAULTS, ONE_KILL, SMOKE
from tests.chaos.report import line
from tests.chaos.run import run_round

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def services(
    stack_programs: None,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Services]:
    """A broker of these tests alone: it is killed."""
    with Services(tmp_path_factory.mktemp("services")) as services:
        yield services


# Twelve starts of a worker are judged by the clock, so nothing runs beside them.
CASES = [pytest.param(name, marks=[pytest.mark.alone] if name == "F01" else []) for name in SMOKE]


@pytest.mark.parametrize("name", CASES)
def test_all_invariants_hold_under(name: str, services: Services, tmp_path: Path) -> None:
    # given
    seed = secrets.randbelow(1000)
    print(f"{name}: repeat with make chaos FAULT={name} ARGS='--first-seed {seed}'")

    # when
    done = asyncio.run(run_round(name, FAULTS[name], seed, services, tmp_path))

    # then
    assert done.holds, line(done)


def test_the_checker_notices_a_worker_that_acknowledges_too_early(
    services: Services, tmp_path: Path
) -> None:
    # given
    broken = {"CHAOS_MUTATION": "acknowledge-early"}

    # when
    done = asyncio.run(run_round("kill", ONE_KILL, 1, services, tmp_path, environment=broken))

    # then
    assert done.verdict is not None, line(done)
    assert done.verdict.violations["I3"], line(done)
