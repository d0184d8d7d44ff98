"""What the pages say about rebalances."""

from dataclasses import replace

from aiohttp.test_utils import TestClient, TestServer

from cortex_stream.settings.sections import WebSettings
from cortex_stream.web.pages import build_app
from cortex_stream.web.status import RebalanceStatus
from tests.unit.web import snapshots


async def page(rebalances: RebalanceStatus, path: str = "/") -> str:
    source = snapshots.busy()
    source.status = replace(source.status, rebalances=rebalances)
    async with TestClient(TestServer(build_app(source, WebSettings()))) as client:
        return (await (await client.get(path)).text()).replace("\u202f", " ")


async def test_rebalances_are_shown_with_their_last_and_their_worst_pause() -> None:
    none = RebalanceStatus()

    text = await page(none.after(1.4).after(0.085))

    assert "<dt>Rebalances</dt><dd>2 " in text
    assert "nothing was taken for 85 ms at the last, 1.4 s at worst" in text
    assert "<dt>Rebalances</dt><dd>0</dd>" in await page(none)


async def test_machines_read_the_same_figures() -> None:
    text = await page(RebalanceStatus(count=3, last_pause_s=0.5, worst_pause_s=2.0), "/status.json")

    assert '"rebalances":{"count":3,"last_pause_s":0.5,"worst_pause_s":2.0}' in text.replace(
        " ", ""
    )
