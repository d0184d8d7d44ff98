"""What the pages say about which version a model's name means."""

from dataclasses import replace

from aiohttp.test_utils import TestClient, TestServer

from cortex_stream.settings.sections import WebSettings
from cortex_stream.web.pages import build_app
from cortex_stream.web.status import CutOverStatus
from tests.unit.web import snapshots


async def page(cut_over: CutOverStatus, path: str = "/") -> str:
    source = snapshots.busy()
    source.status = replace(source.status, cut_overs=(cut_over,))
    async with TestClient(TestServer(build_app(source, WebSettings()))) as client:
        return await (await client.get(path)).text()


async def test_a_worker_that_followed_a_cut_over_says_what_the_name_means() -> None:
    text = await page(CutOverStatus("minilm", wanted="minilm@1", means="minilm@1"))

    assert "<bdi>minilm</bdi> means <bdi>minilm@1</bdi>, as was decided." in text
    assert "missed" not in text


async def test_a_worker_without_that_version_says_what_it_answers_with() -> None:
    text = await page(CutOverStatus("minilm", wanted="minilm@<3>", means="minilm@2"))

    assert "cut-over missed" in text
    assert "<bdi>minilm@&lt;3&gt;</bdi>, which this worker does not serve" in text
    assert "it answers with <bdi>minilm@2</bdi>" in text


async def test_machines_read_the_same() -> None:
    cut_over = CutOverStatus("minilm", wanted="minilm@3", means="minilm@2")

    text = (await page(cut_over, "/status.json")).replace(" ", "")

    assert '"cut_overs":[{"name":"minilm","wanted":"minilm@3","means":"minilm@2"}]' in text
