"""Reports on one set of requests, which other versions answer again through a real worker."""

import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cortex_stream.devstack.stack import Stack
from tests.integration.replay.conftest import MEDIUM, Scene, open_scene
from topics.names import DEAD_LETTERS, MODELS, RESULTS

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
]

WORKER = Path(__file__).with_name("two_versions_worker.py")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def answered(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """120 requests that `stub@1` has answered, 2 that were rejected, and the worker."""
    folder = tmp_path_factory.mktemp("reports")
    async with open_scene(stack, f"test-{secrets.token_hex(5)}", folder) as scene:
        await scene.start_worker(WORKER)
        await scene.ask(120)
        await scene.ask(2, run="bad", attributes={"type": "cortex.unknown.v1"})
        await scene.until_records(RESULTS, 122)
        yield scene


async def report_of(scene: Scene, model: str, name: str) -> tuple[dict[str, Any], str]:
    """Have all requests answered by `model`; return the report, and what was printed."""
    shown = await scene.run("replay", "--topic", MEDIUM, "--model", model, "--id", name)
    return json.loads((scene.folder / f"{name}.json").read_bytes()), shown


async def test_a_report_says_what_another_version_changes(answered: Scene) -> None:
    report, shown = await report_of(answered, "stub@2", "reversed")

    page = (answered.folder / "reversed.html").read_text()
    assert "cosines: least -1.0000" in shown
    assert (report["records"], report["missing"], report["compared"]) == (122, 0, 120)
    assert report["outcomes"] == {"result": 120, "rejected": 2, "expired": 0, "dead_letter": 0}
    assert report["failures"] == {"unknown_type": 2}
    assert (report["then"]["models"], report["now"]["models"]) == ({"stub@1": 120}, {"stub@2": 120})
    cosines, overlap = report["embeddings"]["cosines"], report["embeddings"]["overlap"]
    assert cosines["least"] == pytest.approx(-1, abs=1e-5)
    assert cosines["mean"] == pytest.approx(-1, abs=1e-5)
    assert (overlap["texts"], overlap["neighbours"], overlap["mean"]) == (120, 10, 1.0)
    assert report["newly_failed"] == report["unknown_then"] == 0
    assert report["now"]["model_ms_per_1000_tokens"] > 0
    assert "stub@2" in page


async def test_another_width_has_neighbours_and_no_cosines(answered: Scene) -> None:
    report, _ = await report_of(answered, "wide@1", "wide")

    found = report["embeddings"]
    assert (found["dims_then"], found["dims_now"], found["cosines"]) == (8, 16, None)
    assert found["overlap"]["texts"] == 120


async def test_a_version_that_nobody_serves_fails_in_the_report_and_leaves_no_dead_letter(
    answered: Scene,
) -> None:
    before = await answered.read(DEAD_LETTERS)

    report, _ = await report_of(answered, "nobodys@9", "gone")

    assert report["newly_failed"] == 120
    assert report["failures"] == {"unknown_model": 120, "unknown_type": 2}
    assert await answered.read(DEAD_LETTERS) == before


async def test_a_closed_gate_publishes_nothing_and_says_which_figure_fails(answered: Scene) -> None:
    words = ("replay", "--topic", MEDIUM, "--id", "gated", "--cut-over", "--gate", "latency=1000")

    shown = await answered.run(*words, "--model", "stub@2", code=1)
    again = await answered.run(
        "replay", "report", "gated", "--cut-over", "--gate", "mean-cosine=-1",
        "--gate", "least-cosine=-1", "--gate", "compared=121", code=1,
    )  # fmt: skip

    gate = json.loads((answered.folder / "gated.json").read_bytes())["gate"]
    closed = "the gate is closed, nothing was published: mean-cosine -1, wanted"
    assert closed in " ".join(shown.split())
    assert "closed" in (answered.folder / "gated.html").read_text()
    assert "compared 120, wanted at least 121" in " ".join(again.split())
    assert "compared" in [each["name"] for each in gate if not each["passed"]]
    assert await answered.read(MODELS) == []
