"""What the pages say."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from cortex_stream.settings.sections import WebSettings
from cortex_stream.web.pages import build_app
from cortex_stream.web.status import ServiceState
from tests.unit.web import snapshots

_PAYLOADS = [
    "<script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</title></textarea></pre></code><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)' autofocus='",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "<svg/onload=alert(1)>",
    "<!--",
    "\x00\x1b[31m\r\n\u202eabc",
    "&lt;b&gt;",
    "x" * 5000,
]


class _Structure(HTMLParser):
    """Collects the tags with their attributes' names, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


async def _get(path: str, source: snapshots.FixedSource) -> tuple[int, str, str]:
    """Return status, body and Content-Security-Policy."""
    async with TestClient(TestServer(build_app(source, WebSettings()))) as client:
        response = await client.get(path)
        return response.status, await response.text(), response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("payload", _PAYLOADS)
async def test_hostile_text_is_text_and_never_a_tag_or_an_attribute(payload: str) -> None:
    _, harmless, _ = await _get("/", snapshots.hostile("harmless"))

    _, page, _ = await _get("/", snapshots.hostile(payload))

    assert _Structure(page).tags == _Structure(harmless).tags


async def test_hostile_text_is_shown_as_it_is() -> None:
    _, page, _ = await _get("/", snapshots.hostile("<b>&amp;"))

    assert _Structure(page).texts.count("<b>&amp;") >= 5


async def test_the_policy_allows_this_style_sheet_and_no_script() -> None:
    _, page, policy = await _get("/", snapshots.busy())

    style = re.search(r"<style>(.*)</style>", page, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "script-src" not in policy
    assert not re.search(r"<script|\sstyle=|\son\w+=", page)


async def test_nothing_is_loaded_from_elsewhere() -> None:
    _, page, _ = await _get("/", snapshots.busy())

    addresses = re.findall(r"""(?:href|src|url\()\s*=?\s*["']?([^"')>\s]+)""", page)
    assert addresses
    assert all(address.startswith(("/", "data:")) for address in addresses)


@pytest.mark.parametrize("state", ServiceState)
async def test_the_state_stands_in_the_title_and_as_a_word(state: ServiceState) -> None:
    _, page, _ = await _get("/", snapshots.in_state(state))

    assert f"<title>{state.value.capitalize()} · Cortex Stream</title>" in page
    assert f"{state.value.capitalize()}</span>" in page
    assert "The model minilm@1 is warming up." in page


async def test_the_page_renews_itself_until_it_is_paused() -> None:
    _, page, _ = await _get("/", snapshots.busy())
    _, paused, _ = await _get("/?pause", snapshots.busy())

    assert '<meta http-equiv="refresh"' in page
    assert 'href="/?pause"' in page
    assert 'http-equiv="refresh"' not in paused


async def test_a_worker_without_requests_shows_the_one_to_send() -> None:
    _, page, _ = await _get("/", snapshots.fresh())

    text = "".join(_Structure(page).texts)
    request = re.search(r'\{"id".*\}', text)
    assert request
    assert json.loads(request[0])["data"] == {"texts": ["hello"]}
    assert "cortex.requests.medium" in text


async def test_a_full_lane_is_told_in_words() -> None:
    _, page, _ = await _get("/", snapshots.busy())

    assert page.count(">full<") == 1


async def test_every_runner_is_shown_with_its_state_and_figures() -> None:
    _, page, _ = await _get("/", snapshots.busy())

    table = page[page.index('id="runners"') :].partition("</table>")[0]
    rows = [" ".join("".join(_Structure(f"<tr{row}").texts).split()) for row in table.split("<tr")]
    assert rows[2:] == [
        "minilm@1 0 healthy 97 % 1 204 511 0",
        "minilm@1 1 healthy 97 % 1 204 511 1",
        "bge-small@2 0 healthy 0 % 1 204 511 0",
        "bge-small@2 1 healthy 0 % 1 204 511 1",
    ]


async def test_every_column_has_a_header_and_every_row_a_name() -> None:
    _, page, _ = await _get("/", snapshots.busy())

    structure = _Structure(page).tags
    headers = [names for tag, names in structure if tag == "th"]
    assert headers
    assert all("scope" in names for names in headers)
    labels = [names for tag, names in structure if tag in {"section", "table"}]
    assert all("aria-labelledby" in names for names in labels)
    drawings = [names for tag, names in structure if tag == "svg"]
    assert all("aria-hidden" in names or "aria-label" in names for names in drawings)


async def test_the_json_says_the_same_as_the_page() -> None:
    source = snapshots.busy()

    _, body, _ = await _get("/status.json", source)

    status = json.loads(body)
    assert status["service"]["state"] == "ready"
    assert [lane["lane"] for lane in status["lanes"]] == [
        "critical",
        "high",
        "medium",
        "low",
        "replay",
    ]
    assert status["outcomes"]["dead_letter"] == 17
    assert status["models"][0]["name"] == "minilm"
    assert status["partitions"][3]["lag"] == 45
    assert status["errors"][0]["code"] == "invalid_field"


async def test_the_probes_answer_503_with_the_reasons() -> None:
    ready_status, ready, _ = await _get("/readyz", snapshots.failing())
    live_status, live, _ = await _get("/livez", snapshots.failing())

    assert (ready_status, live_status) == (503, 503)
    assert "No broker answers" in json.loads(ready)["reasons"][0]
    assert json.loads(live) == {"live": False}


async def test_a_draining_worker_is_alive_but_not_ready() -> None:
    source = snapshots.in_state(ServiceState.DRAINING)

    ready_status, _, _ = await _get("/readyz", source)
    live_status, _, _ = await _get("/livez", source)

    assert (ready_status, live_status) == (503, 200)


async def test_metrics_are_what_prometheus_reads() -> None:
    status, text, _ = await _get("/metrics", snapshots.busy())

    families = {family.name for family in text_string_to_metric_families(text)}
    assert status == 200
    assert {"cortex_ready", "cortex_requests", "process_resident_memory_bytes"} <= families
