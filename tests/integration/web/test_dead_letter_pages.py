"""The pages of dead letters, on a real Kafka and in a real browser."""

import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from html import unescape
from io import BytesIO
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from cortex_stream.dead_letters.letterbox import read_turns
from cortex_stream.delivery.dead_letter import Failure, dead_letter
from cortex_stream.devstack.stack import Stack
from cortex_stream.errors import CortexError, InvalidField, StuckRun
from cortex_stream.kafka.admin import TopicAdmin
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.kafka.reader import ReadRecord, TopicReader
from cortex_stream.record import OutgoingRecord, RecordSource
from cortex_stream.settings.kafka import KafkaSettings
from cortex_stream.settings.sections import WebSettings
from cortex_stream.settings.tree import Settings
from cortex_stream.web import dead_letters
from cortex_stream.web.dead_letters import dead_letter_routes
from schemas.priority import Lane
from tests.integration.web.browser import Tab, chromium_or_none, open_tab
from topics.names import VALIDATION, request_topic, stage_topic

pytestmark = pytest.mark.integration

TOKEN = "the-token"  # noqa: S105
ATTACK = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def settings(stack: Stack, topic_prefix: str) -> Settings:
    """A system of this test alone, whose topics exist, with a token."""
    settings = Settings(
        kafka_brokers=stack.kafka_brokers,
        kafka=KafkaSettings(topic_prefix=topic_prefix),
        web=WebSettings(token=SecretStr(TOKEN)),
    )
    async with TopicAdmin(settings) as admin:
        await admin.apply((await admin.plan()).changes)
    return settings


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    """A client of the pages."""
    async with TestClient(serve(settings)) as client:
        yield client


def serve(settings: Settings) -> TestServer:
    app = web.Application()
    app.add_routes(dead_letter_routes(settings))
    return TestServer(app)


def request(request_id: str, *, tenant: str = "acme", texts: Sequence[object] = ("a",)) -> bytes:
    event = {"id": request_id, "type": "cortex.nlp.embed.v1", "tenant": tenant}
    return orjson.dumps({**event, "data": {"texts": list(texts)}})


async def write(settings: Settings, *values: bytes, error: CortexError | None = None) -> None:
    """Write the dead letters of requests."""
    topic = settings.topic(request_topic(Lane.LOW))
    headers = [("trace", b"1"), (ATTACK, ATTACK.encode())]
    source = RecordSource(topic, 0, 7, 1_600_000_000_000, 0.0, key=b"key", headers=headers)
    failure = Failure(error or InvalidField(ATTACK), "validation", 1, "w-0", None, 1, 2)
    await produce(
        settings, *(dead_letter(each, source, failure, max_message_bytes=8192) for each in values)
    )


async def produce(settings: Settings, *records: OutgoingRecord) -> None:
    producer = KafkaProducer(settings)
    await producer.start()
    await producer.send(*records)
    await producer.stop()


async def put_back(settings: Settings) -> list[ReadRecord]:
    async with TopicReader(settings, [stage_topic(VALIDATION, Lane.LOW)]) as reader:
        return [record async for record in reader.to_end()]


async def page(client: Client, path: str, *, status: int = 200) -> str:
    response = await client.get(path)
    html = await response.text()
    assert response.status == status, html
    return html


def listed(html: str) -> list[str]:
    return re.findall(r'<a href="/dead-letters/(\d+/\d+)">', html)


async def test_letters_are_listed_newest_first_and_filtered(
    client: Client, settings: Settings
) -> None:
    assert "There are none." in await page(client, "/dead-letters")
    await write(settings, request("a"), request("b", tenant="other"))
    await write(settings, request("c"), error=StuckRun("too slow"))

    assert listed(await page(client, "/dead-letters")) == ["0/2", "0/1", "0/0"]
    assert listed(await page(client, "/dead-letters?code=stuck_run")) == ["0/2"]
    assert listed(await page(client, "/dead-letters?tenant=other&since=1h")) == ["0/1"]
    assert listed(await page(client, "/dead-letters?type=nothing")) == []
    assert "yesterday" in await page(client, "/dead-letters?since=yesterday", status=400)
    await page(client, "/dead-letters?before=x", status=400)


async def test_every_letter_is_on_one_page(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "MOST_LETTERS", 20)
    await write(settings, *(request(f"r{n}") for n in range(50)))

    found, path, pages = [], "/dead-letters?tenant=acme", 0
    while path:
        html = await page(client, path)
        found += listed(html)
        older = re.search(r'rel="next" href="([^"]+)"', html)
        path = "/dead-letters" + unescape(older[1]) if older else ""
        pages += 1

    assert found == [f"0/{n}" for n in range(49, -1, -1)]
    assert pages == 3


async def test_a_letter_is_shown_with_payload_headers_and_what_went_wrong(
    client: Client, settings: Settings
) -> None:
    await write(settings, request("shown"))

    html = unescape(await page(client, "/dead-letters/0/0"))

    for part in ("invalid_field", "shown", "trace", '"texts": [', "partition 0, offset 7", "acme"):
        assert part in html, part


async def test_a_letter_that_is_not_there_is_not_found(client: Client) -> None:
    assert "there is none at this place" in await page(client, "/dead-letters/0/5", status=404)
    await page(client, "/dead-letters/7/5", status=404)
    for path in ("/dead-letters/0/x", "/dead-letters/0/-1", "/dead-letters/0/" + "9" * 20):
        assert (await client.get(path)).status == 404


async def test_where_kafka_is_away_the_page_says_so(unused_tcp_port: int) -> None:
    away = Settings(kafka_brokers=f"127.0.0.1:{unused_tcp_port}")
    async with TestClient(serve(away)) as client:
        assert "no broker answers" in await page(client, "/dead-letters", status=503)
        assert "no broker answers" in await page(client, "/dead-letters/0/1", status=503)


async def test_the_original_is_put_back_byte_for_byte_once(
    client: Client, settings: Settings
) -> None:
    await write(settings, request("original"))
    form = {"token": TOKEN, "send": "original", "payload": "ignored"}

    first = await client.post("/dead-letters/0/0", data=form)
    second = await client.post("/dead-letters/0/0", data=form)
    third = await client.post("/dead-letters/0/0", data={**form, "again": "1"})

    assert (first.status, second.status, third.status) == (200, 409, 200)
    assert "with replay id" in await first.text()
    assert "redriven 1 times" in await second.text()
    records = await put_back(settings)
    assert [record.value for record in records] == [request("original")] * 2
    assert records[0].headers[0] == ("trace", b"1")
    [turns] = (await read_turns(settings)).values()
    assert turns == (2, 2)


async def test_a_mended_payload_is_checked_first(client: Client, settings: Settings) -> None:
    await write(settings, request("mend", texts=[""]))
    wrong = request("mend", texts=["good", 7]).decode()
    right = request("mend", texts=["good"]).decode()
    form = {"token": TOKEN, "send": "edited"}

    refused = await client.post("/dead-letters/0/0", data={**form, "payload": wrong})
    sent = await client.post("/dead-letters/0/0", data={**form, "payload": right})

    assert refused.status == 422
    html = unescape(await refused.text())
    assert "data.texts[1]" in html
    assert wrong in html
    assert sent.status == 200
    assert [record.value for record in await put_back(settings)] == [right.encode()]


async def test_without_a_token_the_form_is_not_offered_and_nothing_is_sent(
    settings: Settings,
) -> None:
    await write(settings, request("r"))
    tokenless = settings.model_copy(update={"web": WebSettings()})
    async with TestClient(serve(tokenless)) as client:
        html = await page(client, "/dead-letters/0/0")
        response = await client.post("/dead-letters/0/0", data={"token": "", "send": "original"})

    assert 'method="post"' not in html
    assert "CORTEX_WEB__TOKEN" in html
    assert response.status == 403
    assert await put_back(settings) == []


async def test_a_wrong_token_changes_nothing_and_loses_no_edit(
    client: Client, settings: Settings
) -> None:
    await write(settings, request("r"))
    form = {"token": "wrong", "send": "edited", "payload": "my edits"}

    response = await client.post("/dead-letters/0/0", data=form)

    assert response.status == 401
    assert "my edits" in await response.text()
    assert await put_back(settings) == []


async def test_a_payload_too_large_for_the_form_is_refused_on_the_page_and_says_what_to_do(
    client: Client, settings: Settings
) -> None:
    await write(settings, request("r"))
    large = BytesIO(f"token={TOKEN}&send=edited&payload=".encode() + b"x" * (1 << 20))

    response = await client.post(
        "/dead-letters/0/0",
        data=large,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )

    html = await response.text()
    assert (response.status, response.content_type) == (413, "text/html")
    assert "as a form the payload may have 1 MiB" in html
    assert "Check and send the mended payload" in html
    assert await put_back(settings) == []


async def test_a_payload_too_large_to_be_shown_names_the_command_that_mends_it(
    client: Client, settings: Settings
) -> None:
    await write(settings, request("r", texts=["x" * 70_000]))

    html = await page(client, "/dead-letters/0/0")

    assert "<textarea" not in html
    assert "cortex-stream dead-letters redrive 0:0 --edit" in html


# ---- in a browser --------------------------------------------------------------------------------


@pytest.fixture
async def tab() -> AsyncIterator[Tab]:
    """A tab of a browser with an empty profile."""
    chromium = chromium_or_none()
    if chromium is None:
        pytest.skip("no chromium on the PATH: the README asks for Python and make alone")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        async with open_tab(chromium, Path(profile)) as tab:
            yield tab


@pytest.mark.slow
async def test_the_pages_fit_telephones_and_screens_and_attacks_stay_text(
    client: Client, settings: Settings, tab: Tab
) -> None:
    await write(settings, request("r" * 200, tenant="t" * 200), ATTACK.encode() + b"\xff" * 300)

    for path in ("/dead-letters", "/dead-letters/0/0", "/dead-letters/0/1"):
        for width in (320, 400, 768, 1280):
            await tab.open(str(client.make_url(path)), width=width)
            assert await tab.evaluate("document.documentElement.scrollWidth") <= width, path
        assert await tab.evaluate("typeof window.hacked") == "undefined"
        assert await tab.evaluate("document.images.length + document.scripts.length") == 0
    # what begins so is advice about the form, not something that was blocked
    assert [each for each in tab.complaints if not each.startswith("[DOM]")] == []


@pytest.mark.slow
async def test_a_person_mends_and_sends_in_the_browser(
    client: Client, settings: Settings, tab: Tab
) -> None:
    await write(settings, request("clicked", texts=[""]))
    await tab.open(str(client.make_url("/dead-letters/0/0")), width=1280)

    await tab.evaluate(
        """(() => { const form = document.querySelector('form[method=post]');
        form.payload.value = form.payload.value.replace('""', '"mended"');
        form.token.value = 'the-token'; form.querySelector('button[value=edited]').click(); return true; })()"""
    )
    await tab.loaded()

    assert await tab.evaluate("document.querySelector('[role=status]').innerText.includes('Sent')")
    [record] = await put_back(settings)
    assert orjson.loads(record.value or b"")["data"] == {"texts": ["mended"]}
