"""The status page in a real browser."""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from aiohttp.test_utils import TestServer

from cortex_stream.settings.sections import WebSettings
from cortex_stream.web.pages import build_app
from tests.integration.web.browser import Tab, chromium_or_none, open_tab
from tests.unit.web import snapshots

pytestmark = [pytest.mark.integration, pytest.mark.slow]

_ATTACK = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
_SOURCES = {
    "busy": snapshots.busy(),
    "fresh": snapshots.fresh(),
    "failing": snapshots.failing(),
    "hostile": snapshots.hostile(_ATTACK + "x" * 400),
}
# The lowest WCAG contrast of any text that is drawn, against the first painted ground behind it.
_LOWEST_CONTRAST = """(() => {
  const rgb = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = rgb(c).map(v => { v /= 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if ((rgb(c)[3] ?? 1) > 0) return c; } };
  let lowest = 21;
  for (const e of document.body.querySelectorAll('*')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    lowest = Math.min(lowest, (a + 0.05) / (b + 0.05));
  }
  return lowest;
})()"""
_OVERFLOWING = """[...document.querySelectorAll(".fold td")]
  .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent).join("; ")"""

Serve = Callable[[snapshots.FixedSource], Awaitable[str]]


@pytest.fixture
async def tab() -> AsyncIterator[Tab]:
    """A tab of a browser with an empty profile."""
    chromium = chromium_or_none()
    if chromium is None:
        pytest.skip("no chromium on the PATH: the README asks for Python and make alone")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        async with open_tab(chromium, Path(profile)) as tab:
            yield tab


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serve a source's pages and return their address."""
    servers: list[TestServer] = []

    async def start(source: snapshots.FixedSource) -> str:
        server = TestServer(build_app(source, WebSettings()))
        servers.append(server)
        await server.start_server()
        return str(server.make_url("/"))

    yield start
    for server in servers:
        await server.close()


@pytest.mark.parametrize("name", _SOURCES)
async def test_the_page_fits_telephones_and_screens(tab: Tab, serve: Serve, name: str) -> None:
    address = await serve(_SOURCES[name])

    for width in (320, 400, 768, 1280):
        await tab.open(f"{address}?pause", width=width)
        assert await tab.evaluate("document.documentElement.scrollWidth") <= width


async def test_no_figure_leaves_its_cell_on_a_telephone(tab: Tab, serve: Serve) -> None:
    source = snapshots.busy()
    long_s = 4210.0
    lanes = tuple(replace(lane, worst_wait_s=long_s) for lane in source.status.lanes)
    source.status = replace(source.status, lanes=lanes)

    for width in (320, 400):
        await tab.open(f"{await serve(source)}?pause", width=width)
        assert await tab.evaluate(_OVERFLOWING) == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_is_readable_in_light_and_dark(
    tab: Tab, serve: Serve, scheme: Literal["light", "dark"]
) -> None:
    for source in _SOURCES.values():
        await tab.open(f"{await serve(source)}?pause", width=1280, scheme=scheme)

        assert await tab.evaluate(_LOWEST_CONTRAST) >= 4.5


async def test_the_page_follows_the_readers_colour_scheme(tab: Tab, serve: Serve) -> None:
    address = await serve(_SOURCES["busy"])
    ground = "getComputedStyle(document.body).backgroundColor"

    await tab.open(address, width=400, scheme="light")
    light = await tab.evaluate(ground)
    await tab.open(address, width=400, scheme="dark")

    assert await tab.evaluate(ground) != light


async def test_an_attack_stays_text_and_the_browser_has_nothing_to_block(
    tab: Tab, serve: Serve
) -> None:
    await tab.open(await serve(_SOURCES["hostile"]), width=1280)

    assert await tab.evaluate("typeof window.hacked") == "undefined"
    assert await tab.evaluate("document.body.innerText.includes('window.hacked=1')")
    assert await tab.evaluate("document.images.length + document.scripts.length") == 0
    assert tab.complaints == []


async def test_the_page_renews_itself_without_a_script(tab: Tab, serve: Serve) -> None:
    source = snapshots.fresh()
    await tab.open(await serve(source), width=1280)
    before = await tab.evaluate("document.querySelector('h1').textContent")

    source.status = snapshots.busy().status
    await tab.loaded()

    after = await tab.evaluate("document.querySelector('h1').textContent")
    assert (before, after) == ("Ready, and idle.", "Answering 241 requests a second.")
