"""What the pages say about retries."""

from dataclasses import replace

from aiohttp.test_utils import TestClient, TestServer

from cortex_stream.settings.sections import WebSettings
from cortex_stream.web.pages import build_app
from cortex_stream.web.status import RetryStatus
from tests.unit.web import snapshots


async def test_retries_are_shown_as_those_that_wait_and_those_that_could_follow() -> None:
    source = snapshots.busy()
    source.status = replace(source.status, retries=RetryStatus(waiting=12, budget_left=57.8))

    async with TestClient(TestServer(build_app(source, WebSettings()))) as client:
        page = await (await client.get("/")).text()
        figures = await (await client.get("/status.json")).json()

    assert '<dt>Retries</dt><dd>12 waiting <span class="quiet">57 more' in page
    assert figures["retries"] == {"waiting": 12, "budget_left": 57.8}
