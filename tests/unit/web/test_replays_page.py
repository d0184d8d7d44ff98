"""The page of replays: what it shows, how often it asks, and what it says when Kafka is away."""

from collections.abc import AsyncIterator, Sequence

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from cortex_stream.clock import ManualClock
from cortex_stream.errors import BrokerUnavailable
from cortex_stream.replay.journal import Standing
from cortex_stream.replay.plan import Range, draft_plan
from cortex_stream.settings.sections import WebSettings
from cortex_stream.web.replays import ReplayBoard, board_routes


class Kafka:
    """What the page finds, and how often it asked."""

    def __init__(self) -> None:
        self.found: Sequence[Standing] = ()
        self.asked = 0
        self.away = False

    async def find(self) -> Sequence[Standing]:
        self.asked += 1
        if self.away:
            raise BrokerUnavailable("talking to Kafka: no broker answers")
        return self.found


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def client(
    kafka: Kafka, clock: ManualClock
) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    app = web.Application()
    app.add_routes(board_routes(ReplayBoard(kafka.find, clock), WebSettings()))
    async with TestClient(TestServer(app)) as client:
        yield client


def standing(clock: ManualClock, replay_id: str = "nightly") -> Standing:
    plan = draft_plan(
        topic="cortex.requests.medium",
        asked_from="earliest",
        asked_to="latest",
        model="minilm@2",
        started_unix_ms=clock.unix_ms() - 65_000,
    ).model_copy(update={"ranges": (Range(0, 0, 200),)})
    return Standing(replay_id, plan, {0: 50}, {0: 40}, clock.unix_ms(), 12.5)


async def test_a_running_replay_is_shown_with_how_far_it_is(
    kafka: Kafka, clock: ManualClock, client: TestClient[web.Request, web.Application]
) -> None:
    kafka.found = [standing(clock)]

    page = await (await client.get("/replays")).text()
    row = (await (await client.get("/replays.json")).json())["replays"][0]

    assert all(part in page for part in ("nightly", "running", "minilm@2", "1\u202fmin"))
    assert (row["done_offsets"], row["offsets"], row["done"]) == (50, 200, 0.25)
    assert (row["records"], row["per_s"], row["state"]) == (40, 12.5, "running")


async def test_kafka_is_asked_once_in_five_seconds(
    kafka: Kafka, clock: ManualClock, client: TestClient[web.Request, web.Application]
) -> None:
    for _ in range(3):
        await client.get("/replays")
    asked_at_once = kafka.asked
    clock.advance_s(5)
    await client.get("/replays.json")

    assert (asked_at_once, kafka.asked) == (1, 2)


async def test_without_kafka_the_page_says_so(
    kafka: Kafka, client: TestClient[web.Request, web.Application]
) -> None:
    kafka.away = True

    page, as_json = await client.get("/replays"), await client.get("/replays.json")

    assert (page.status, as_json.status) == (503, 503)
    assert "no broker answers" in await page.text()
    assert (await as_json.json())["error"]["code"] == "broker_unavailable"


async def test_a_hostile_name_is_escaped(
    kafka: Kafka, clock: ManualClock, client: TestClient[web.Request, web.Application]
) -> None:
    kafka.found = [standing(clock, "<script>")]

    page = await (await client.get("/replays")).text()

    assert "<script>" not in page


async def test_without_replays_the_page_says_how_to_begin(
    client: TestClient[web.Request, web.Application],
) -> None:
    assert "--dry-run" in await (await client.get("/replays")).text()
