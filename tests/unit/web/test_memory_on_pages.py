"""What the pages say about memory."""

from dataclasses import replace

from aiohttp.test_utils import TestClient, TestServer

from cortex_stream.settings.sections import WebSettings
from cortex_stream.web import figures
from cortex_stream.web.pages import build_app
from cortex_stream.web.status import MemoryStatus
from schemas.priority import Lane
from tests.unit.web import snapshots

SHORT = MemoryStatus(
    state="shedding",
    used_bytes=3700 << 20,
    limit_bytes=4096 << 20,
    limit_source="container",
    held_bytes=512 << 20,
    most_held_bytes=512 << 20,
)


async def page(source: snapshots.FixedSource, path: str = "/") -> str:
    async with TestClient(TestServer(build_app(source, WebSettings()))) as client:
        return await (await client.get(path)).text()


def short_of_memory() -> snapshots.FixedSource:
    source = snapshots.busy()
    lanes = tuple(
        replace(
            lane,
            shed=lane.lane in {Lane.LOW, Lane.REPLAY},
            shed_s=75.0 if lane.lane is Lane.MEDIUM else 0.0,
        )
        for lane in source.status.lanes
    )
    source.status = replace(source.status, lanes=lanes, memory=SHORT)
    return source


async def test_a_shed_lane_says_why_it_is_paused() -> None:
    assert (await page(short_of_memory())).count(">paused: memory is short<") == 2
    assert "memory is short" not in await page(snapshots.busy())


async def test_a_lane_that_was_shed_says_for_how_long() -> None:
    text = (await page(short_of_memory())).replace("\u202f", " ")

    assert text.count('title="since the start">paused 1 min 15 s in all<') == 1
    assert 'title="since the start"' not in await page(snapshots.busy())


async def test_memory_is_shown_with_its_limit_and_its_state() -> None:
    text = (await page(short_of_memory())).replace("\u202f", " ")

    assert "3 700 MiB of 4 096 MiB" in text
    assert "shedding; limit of the container" in text
    assert "<dt>Memory</dt>" not in await page(snapshots.busy())


async def test_machines_read_the_same_figures() -> None:
    text = await page(short_of_memory(), "/status.json")

    assert '"limit_source":"container"' in text.replace(" ", "")
    assert text.replace(" ", "").count('"shed":true') == 2


def test_sizes_are_shown_in_mebibytes() -> None:
    assert figures.mebibytes(1_536 << 20) == "1\u202f536\u202fMiB"
