"""What the README shows is true."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cortex_stream.cli.main import COMMANDS
from cortex_stream.environment import subprocess_environment
from tests.acceptance.system import System

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def keys(value: Any) -> Any:
    """Return the shape of a JSON value: its keys, and those of what they hold."""
    return {k: keys(v) for k, v in value.items()} if isinstance(value, dict) else None


async def test_the_python_client_of_the_readme_gets_its_answer(running: System) -> None:
    # given
    (program,) = blocks("python")
    for topic in ("cortex.requests.medium", "cortex.results"):
        assert f'"{topic}"' in program
        program = program.replace(f'"{topic}"', f'"{running.topic(topic)}"')

    # when
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        env=subprocess_environment(**running.environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    # then
    assert (done.stdout, done.returncode) == ("384 numbers\n", 0), done.stderr


async def test_the_request_of_the_readme_has_the_outcome_of_the_readme(running: System) -> None:
    # given
    request, outcome = (json.loads(block) for block in blocks("json"))

    # when
    await (await running.send_raw("cortex.requests.medium", json.dumps(request).encode()))
    answered = await running.outcome(request["id"])

    # then
    assert keys(answered) == keys(outcome)
    assert answered["data"]["output"]["tokens"] == outcome["data"]["output"]["tokens"]


async def test_the_commands_of_the_readme_exist() -> None:
    console = "".join(blocks("console"))
    tasks = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"cortex-stream ([a-z-]+)", console)) <= COMMANDS.keys()
    assert set(re.findall(r"^make ([a-z]+)", console, re.MULTILINE)) <= tasks
