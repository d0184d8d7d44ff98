"""Requests that failed are put back, and end once more: with one outcome of their own each."""

import asyncio
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from cortex_stream.devstack.stack import Stack
from cortex_stream.environment import subprocess_environment
from cortex_stream.loadtest.free_model import ENVIRONMENT
from tests.acceptance.system import System, WorkerProcess, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

STUB = ("-m", "agents.stub_worker")
EMBED = "cortex.nlp.embed.v1"
STRICT = {"CORTEX_LIMITS__TEXTS": "1"}


@pytest.fixture
async def system(stack: Stack, topic_prefix: str, tmp_path: Path) -> AsyncIterator[System]:
    """A system whose model only sleeps."""
    system = System(stack.environment(), prefix=topic_prefix, models=tmp_path, folder=tmp_path)
    system.environment |= {
        **ENVIRONMENT,
        "CORTEX_WEB__TOKEN": "the-token",
    }
    async with system:
        yield system


async def rejected_by_a_strict_worker(system: System, ids: Sequence[str]) -> None:
    """Let requests of two texts fail at a worker that takes one, and end that worker."""
    worker = await system.worker(STUB, **STRICT)
    pending = [await system.send(i, EMBED, {"texts": [i, "two"]}, tenant="acme") for i in ids]
    await asyncio.gather(*pending)
    await system.answered(ids, timeout_s=30)
    assert await worker.terminate() == 0
    await system.read_to_the_end()


def listed(system: System, *options: str) -> list[dict[str, Any]]:
    found = system.command("dead-letters", "list", "--limit", "1000", "--json", *options)
    return [orjson.loads(line) for line in found.splitlines()]


def replayed(system: System, request_id: str) -> dict[str, str]:
    """Return the kind of each outcome of redrives, by its id."""
    return {
        outcome["id"]: outcome["type"].split(".")[2]
        for outcome in system.outcomes[request_id]
        if outcome["data"]["replay_id"] is not None
    }


async def results_of(system: System, ids: Sequence[str]) -> None:
    await until(
        lambda: all("result" in replayed(system, each).values() for each in ids),
        timeout_s=40,
        what=lambda: str([each for each in ids if not replayed(system, each)]),
    )
    await system.read_to_the_end()


def kill_after_the_first_line(system: System, words: Sequence[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "cortex_stream", *words],
        env=subprocess_environment(**system.environment),
        stdout=subprocess.PIPE,
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline()
        command.kill()


async def test_n_letters_give_n_requests_with_one_outcome_each(system: System) -> None:
    ids = [f"n{number}" for number in range(20)]
    await rejected_by_a_strict_worker(system, ids)
    assert {each["code"] for each in listed(system, "--tenant", "acme")} == {"limit_exceeded"}

    dry = system.command("dead-letters", "redrive", "--code", "limit_exceeded")
    sent = system.command("dead-letters", "redrive", "--code", "limit_exceeded", "--yes")
    again = system.command("dead-letters", "redrive", "--code", "limit_exceeded", "--yes")
    await system.worker(STUB)
    await results_of(system, ids)

    assert dry == "20 letters would be put back; send with --yes\n"
    assert sent == "20 letters put back\n"
    assert "20 left alone: redriven" in again
    assert [len(replayed(system, each)) for each in ids] == [1] * 20
    replay_ids = {o["data"]["replay_id"] for each in ids for o in system.outcomes[each]}
    assert len(replay_ids - {None}) == 20
    assert all(system.outcomes[each][0]["type"].endswith("rejected.v1") for each in ids)


async def test_a_redrive_that_is_killed_and_repeated_gives_one_outcome_each(system: System) -> None:
    ids = [f"k{number}" for number in range(30)]
    await rejected_by_a_strict_worker(system, ids)
    await system.worker(STUB)
    words = ["dead-letters", "redrive", "--all", "--yes"]

    await asyncio.to_thread(kill_after_the_first_line, system, [*words, "--rate", "5", "--json"])
    between = [each["redriven"] for each in listed(system)]
    system.command(*words)
    await results_of(system, ids)

    assert 0 < between.count("no") < 30
    assert [list(replayed(system, each).values()) for each in ids] == [["result"]] * 30
    assert {each["redriven"] for each in listed(system)} == {"once"}


async def test_a_request_that_fails_again_counts_its_redrives_until_it_is_left_alone(
    system: System,
) -> None:
    await system.worker(STUB, **STRICT)
    await (await system.send("circle", EMBED, {"texts": ["one", "two"]}))
    await system.answered(["circle"], timeout_s=30)

    for redrives in range(1, 4):
        system.command("dead-letters", "redrive", "--all", "--yes")
        await until(
            lambda redrives=redrives: len(replayed(system, "circle")) == redrives,  # type: ignore[misc]
            timeout_s=20,
            what=lambda: str(system.outcomes["circle"]),
        )
    left = system.command("dead-letters", "redrive", "--all", "--yes")

    assert sorted(each["redrives"] for each in listed(system)) == [0, 1, 2, 3]
    assert "1 left alone: loop" in left
    assert set(replayed(system, "circle").values()) == {"rejected"}


async def test_a_mended_payload_is_answered(system: System, tmp_path: Path) -> None:
    await system.worker(STUB)
    await (await system.send("mend", EMBED, {"texts": [""]}))
    await system.answered(["mend"], timeout_s=30)
    await until(lambda: bool(listed(system)), timeout_s=20, what=lambda: "no letter")
    script = tmp_path / "editor.py"
    script.write_text(
        "import sys; from pathlib import Path; p = Path(sys.argv[1])\n"
        "p.write_text(p.read_text().replace('\"\"', '\"mended\"'))"
    )
    system.environment |= {"EDITOR": f"{sys.executable} {script}", "VISUAL": ""}
    [letter] = listed(system)

    system.command("dead-letters", "redrive", letter["letter"], "--edit", "--yes")
    await results_of(system, ["mend"])

    assert list(replayed(system, "mend").values()) == ["result"]


async def test_a_worker_serves_the_pages_and_sends_from_them_behind_the_token(
    system: System,
) -> None:
    await rejected_by_a_strict_worker(system, ["paged"])
    worker = await system.worker(STUB)
    [letter] = listed(system)
    path = "/dead-letters/" + letter["letter"].replace(":", "/")

    browsed, shown = worker.get("/dead-letters"), worker.get(path)
    refused = post(worker, path, token="wrong")  # noqa: S106
    sent = post(worker, path, token="the-token")  # noqa: S106
    await results_of(system, ["paged"])

    assert (browsed[0], shown[0], refused, sent) == (200, 200, 401, 200)
    assert path.encode() in browsed[1]
    assert b"limit_exceeded" in shown[1]
    assert list(replayed(system, "paged").values()) == ["result"]


def post(worker: WorkerProcess, path: str, **form: str) -> int:
    body = urllib.parse.urlencode({"send": "original", **form}).encode()
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{worker.port}{path}", data=body, timeout=20
        ) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
