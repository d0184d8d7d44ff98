"""What the pages say about the dedupe window."""

from dataclasses import replace

from aiohttp.test_utils import TestClient, TestServer

from cortex_stream.settings.sections import WebSettings
from cortex_stream.web.pages import build_app
from cortex_stream.web.status import DedupeStatus
from tests.unit.web import snapshots


async def page(dedupe: DedupeStatus | None, path: str = "/") -> str:
    source = snapshots.busy()
    source.status = replace(source.status, dedupe=dedupe)
    async with TestClient(TestServer(build_app(source, WebSettings()))) as client:
        return await (await client.get(path)).text()


async def test_an_open_circuit_is_shown_with_its_moment_and_its_reason() -> None:
    dedupe = DedupeStatus(
        on=False, detail="circuit open: <refused>", off_since_unix_ms=1_700_000_000_000
    )

    text = await page(dedupe)

    assert "<dt>Dedupe</dt><dd>off since 2023-11-14 22:13:20 UTC " in text
    assert "circuit open: &lt;refused&gt;" in text


async def test_a_window_that_is_left_out_says_why() -> None:
    text = await page(DedupeStatus(on=False, detail="REDIS_URL is not set"))

    assert "<dt>Dedupe</dt><dd>off <" in text
    assert "REDIS_URL is not set" in text


async def test_a_window_that_works_says_for_how_long_ids_are_remembered() -> None:
    text = await page(DedupeStatus(on=True, detail="ids are remembered for 3600 s"))

    assert "<dt>Dedupe</dt><dd>on <" in text


async def test_machines_read_the_same() -> None:
    dedupe = DedupeStatus(on=False, detail="circuit open: gone", off_since_unix_ms=5)

    text = (await page(dedupe, "/status.json")).replace(" ", "")

    assert '"dedupe":{"on":false,"detail":"circuitopen:gone","off_since_unix_ms":5}' in text
    assert "<dt>Dedupe</dt>" not in await page(None)
