"""Replays on the real broker, without a worker: what is put back, how fast, and what a kill does."""

import asyncio
import datetime as dt
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from unittest.mock import patch

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.producer import message_accumulator
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from cortex_stream.clock import SystemClock
from cortex_stream.kafka.connection import connection_arguments
from cortex_stream.kafka.reader import Position, ReadRecord, TopicReader
from cortex_stream.replay.injection import Injection
from cortex_stream.replay.journal import Standing, find_replay, write_state
from cortex_stream.replay.plan import draft_plan
from cortex_stream.replay.survey import survey, with_ranges
from cortex_stream.web.replays import replay_routes
from tests.integration.replay.conftest import MEDIUM, REPLAY_LANE, Scene, handover, origins
from topics.names import AUDIT

pytestmark = [pytest.mark.integration, pytest.mark.slow]


async def ended(process: subprocess.Popen[str]) -> str:
    output, _ = await asyncio.to_thread(process.communicate, timeout=30)
    return output


async def test_every_record_is_put_back_as_it_was_and_the_live_group_is_not_touched(
    scene: Scene,
) -> None:
    await scene.ask(500)
    there = await scene.read(MEDIUM)

    shown = await scene.run("replay", "--topic", MEDIUM, "--id", "all")

    back = await scene.read(REPLAY_LANE)
    by_origin = dict(zip(origins(back), back, strict=True))
    assert "500 records put back" in shown
    assert len(back) == len(by_origin) == 500
    for record in there:
        again = by_origin[record.partition, record.offset]
        assert (again.key, again.value) == (record.key, record.value)
        assert again.headers[:-1] == record.headers
        told = handover(again)
        assert (told.topic, told.timestamp_ms) == (
            scene.settings.topic(MEDIUM),
            record.timestamp_ms,
        )
        assert (told.attempt, told.left_ms, told.stage) == (1, None, "validation")
        assert told.reinjection is not None
        assert (told.reinjection.replay_id, told.reinjection.publish_to) == ("all", "replays")
    assert await scene.committed() == {}


async def test_bounds_and_filters_choose_what_is_put_back(scene: Scene) -> None:
    await scene.ask(20, run="early", attributes={"tenant": "acme"})
    early_ms = max(record.timestamp_ms for record in await scene.read(MEDIUM))
    while SystemClock().unix_ms() <= early_ms:
        await asyncio.sleep(0.001)
    since = dt.datetime.fromtimestamp((early_ms + 1) / 1000, dt.UTC).isoformat()
    await scene.ask(20, run="late", attributes={"tenant": "acme"})
    await scene.ask(20, run="other", attributes={"tenant": "umbrella"})

    dry = await scene.run("replay", "--topic", MEDIUM, "--from", since, "--dry-run", "--rate", "10")
    nothing_yet = await scene.read(REPLAY_LANE)
    await scene.run(
        "replay", "--topic", MEDIUM, "--from", since, "--filter", "tenant=acme", "--model", "m@2",
        "--wait-s", "0",
    )  # fmt: skip

    back = await scene.read(REPLAY_LANE)
    assert "40 would be put back" in dry
    assert "At 10/s: 4 s" in dry
    assert nothing_yet == []
    assert sorted(record.key or b"" for record in back) == sorted(
        f"late-{number}".encode() for number in range(20)
    )
    told = handover(back[0]).reinjection
    assert told is not None
    assert told.model == "m@2"


async def test_a_record_from_the_future_does_not_hide_those_behind_it(scene: Scene) -> None:
    await scene.ask(3, run="before")
    now_ms = SystemClock().unix_ms()
    async with AIOKafkaProducer(**connection_arguments(scene.settings)) as client:
        for partition in range(4):  # the broker takes timestamps of up to an hour ahead
            await client.send_and_wait(
                scene.settings.topic(MEDIUM),
                b"{}",
                partition=partition,
                timestamp_ms=now_ms + 1_800_000,
            )
    await scene.ask(3, run="after")

    until = dt.datetime.fromtimestamp(now_ms / 1000 + 600, dt.UTC).isoformat()
    shown = await scene.run("replay", "--topic", MEDIUM, "--to", until, "--dry-run")

    assert "10 records read, 6 would be put back" in shown


async def test_a_replay_cancelled_from_elsewhere_ends_within_five_seconds(scene: Scene) -> None:
    await scene.ask(500)
    process = scene.start("replay", "--topic", MEDIUM, "--id", "long", "--rate", "10/s")
    await scene.until_records(REPLAY_LANE, 5)
    clock = SystemClock()

    await scene.run("replay", "cancel", "long")
    began_s = clock.monotonic_s()
    output = await ended(process)

    assert clock.monotonic_s() - began_s < 5
    assert process.returncode == 1
    assert "long was cancelled" in output
    again = await scene.run("replay", "--topic", MEDIUM, "--id", "long", "--rate", "10/s", code=1)
    assert "it was cancelled" in again


async def test_a_cancelled_replay_can_be_resumed_and_the_audit_says_who_did_what(
    scene: Scene,
) -> None:
    await scene.ask(100)
    process = scene.start("replay", "--topic", MEDIUM, "--id", "back", "--rate", "20/s")
    await scene.until_records(REPLAY_LANE, 5)
    await scene.run("replay", "cancel", "back")
    await ended(process)

    shown = await scene.run("replay", "resume", "back")

    assert "100 records put back" in shown
    assert len(set(origins(await scene.read(REPLAY_LANE)))) == 100
    audited = [json.loads(record.value or b"") for record in await scene.read(AUDIT)]
    assert [each["action"] for each in audited] == [
        "replay.begin",
        "replay.cancel",
        "replay.resume",
    ]
    assert {each["subject"] for each in audited} == {"cortex-replay.back"}


async def test_ctrl_c_stops_cleanly_says_how_to_go_on_and_nothing_is_repeated(
    scene: Scene,
) -> None:
    await scene.ask(200)
    process = scene.start("replay", "--topic", MEDIUM, "--id", "stopped", "--rate", "50/s")
    await scene.until_records(REPLAY_LANE, 20)

    process.send_signal(signal.SIGINT)
    output = await ended(process)
    listed = json.loads(await scene.run("replay", "list", "--json"))["replays"][0]
    await scene.run("replay", "--topic", MEDIUM, "--id", "stopped", "--rate", "1000/s")

    assert process.returncode == 130, output
    assert "go on: cortex-stream replay resume stopped" in output
    assert 20 <= listed["records"] < 200
    back = await scene.read(REPLAY_LANE)
    assert len(set(origins(back))) == 200
    assert len(back) - 200 <= 5  # the chunk that was under way
    finished = json.loads(await scene.run("replay", "list", "--json"))["replays"][0]
    assert (finished["state"], finished["done_offsets"]) == ("finished", finished["offsets"])


@pytest.mark.alone
async def test_the_rate_is_kept_within_a_tenth(scene: Scene) -> None:
    await scene.ask(500)

    await scene.run("replay", "--topic", MEDIUM, "--rate", "100/s")

    times_ms = sorted(record.timestamp_ms for record in await scene.read(REPLAY_LANE))
    per_s = 490 / ((times_ms[-1] - times_ms[9]) / 1000)
    print(f"{per_s:.1f}/s of 100")
    assert 90 <= per_s <= 110


async def test_it_does_not_run_ahead_of_the_lane_without_bound(scene: Scene) -> None:
    await scene.ask(5_600)
    process = scene.start("replay", "--topic", MEDIUM, "--id", "ahead")

    await scene.until_records(REPLAY_LANE, 5_000)
    await asyncio.sleep(2)  # time in which it would go on if it did
    waiting = len(await scene.read(REPLAY_LANE))
    process.send_signal(signal.SIGINT)
    await ended(process)

    assert waiting == 5_000


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--topic", "cortex.results"], "wanted one of cortex.requests.critical"),
        (["--topic", MEDIUM, "--publish-to", "live"], "add --yes"),
        (["--topic", MEDIUM, "--id", "../x"], "naming the replay"),
        (["--topic", MEDIUM, "--from", "never"], "reading --from"),
    ],
)
async def test_what_cannot_be_done_is_refused_before_anything_is_written(
    scene: Scene, words: list[str], wanted: str
) -> None:
    await scene.ask(1)

    shown = await scene.run("replay", *words, code=1)

    assert wanted in " ".join(shown.split())
    assert await scene.read(REPLAY_LANE) == []


async def test_an_id_belongs_to_one_replay_for_ever(scene: Scene) -> None:
    await scene.ask(3)
    await scene.run("replay", "--topic", MEDIUM, "--id", "once")

    shown = await scene.run("replay", "--topic", MEDIUM, "--id", "once", "--to", "0:1", code=1)
    again = await scene.run("replay", "--topic", MEDIUM, "--id", "once")

    cancelled = await scene.run("replay", "cancel", "once", code=1)
    strange = await scene.run("replay", "report", "../once", code=1)

    assert "begun with another --to" in " ".join(shown.split())
    assert "is finished" in again
    assert "cancelling once: it is finished" in cancelled
    assert "naming the replay" in strange
    assert len(await scene.read(REPLAY_LANE)) == 3


class NotUtf8(str):
    """A header name as a client in another language may send it."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


async def test_a_record_that_nobody_can_decode_is_stepped_over_and_counted(scene: Scene) -> None:
    await scene.ask(40, run="beside")
    builder = patch.object(
        message_accumulator, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy
    )
    async with AIOKafkaProducer(**connection_arguments(scene.settings)) as client:
        with builder:
            batch = client.create_batch()
            for name in ("h", NotUtf8("h"), "h"):
                _ = batch.append(
                    key=None, value=b"{}", timestamp=SystemClock().unix_ms(), headers=[(name, b"v")]
                )
            batch.close()
            sent = await client.send_batch(batch, scene.settings.topic(MEDIUM), partition=0)
        await sent
    await scene.ask(40, run="behind")

    shown = await scene.run("replay", "--topic", MEDIUM)

    back = await scene.read(REPLAY_LANE)
    assert "1 records cannot be decoded and were left out" in shown
    assert len(set(origins(back))) == len(back) == 82


async def test_a_record_that_has_no_room_for_our_header_is_left_out_and_counted(
    scene: Scene,
) -> None:
    await scene.ask(40, run="beside")
    async with AIOKafkaProducer(
        **connection_arguments(scene.settings), max_request_size=16 << 20, compression_type="gzip"
    ) as client:  # brokers compare what is compressed
        await client.send_and_wait(scene.settings.topic(MEDIUM), bytes(9 << 20), partition=0)
    await scene.ask(40, run="behind")
    clock, settings = SystemClock(), scene.settings
    draft = draft_plan(
        topic=MEDIUM, asked_from="earliest", asked_to="latest", started_unix_ms=clock.unix_ms()
    )
    plan = await with_ranges(settings, draft, say=print)
    await write_state(settings, "large", plan, "running")

    foreseen = await survey(settings, plan)
    injection = Injection(
        settings,
        Standing("large", plan, {}, {}, plan.started_unix_ms, 0.0),
        clock=clock,
        tell=lambda _: None,
    )
    await injection.run()
    await scene.run("replay", "report", "large", "--wait-s", "0")

    back = await scene.read(REPLAY_LANE)
    assert len(set(origins(back))) == len(back) == 80
    assert (foreseen.picked, foreseen.too_large, injection.too_large) == (80, 1, 1)
    assert (await find_replay(settings, "large")).plan.state == "finished"
    report = json.loads((scene.folder / "large.json").read_bytes())
    assert (report["records"], report["too_large"]) == (80, 1)


async def test_a_replay_whose_last_records_are_deleted_meanwhile_stops_and_says_which(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.ask(80)
    count = sum(record.partition == 1 for record in await scene.read(MEDIUM))
    read = TopicReader.between

    async def deleted_first(
        reader: TopicReader, ranges: Mapping[Position, tuple[int, int]]
    ) -> AsyncIterator[ReadRecord]:
        place = TopicPartition(scene.settings.topic(MEDIUM), 1)
        admin = AIOKafkaAdminClient(**connection_arguments(scene.settings))
        await admin.start()
        try:
            await admin.delete_records({place: RecordsToDelete(before_offset=count)})
        finally:
            await admin.close()
        async for record in read(reader, ranges):
            yield record

    monkeypatch.setattr(TopicReader, "between", deleted_first)

    shown = await scene.run("replay", "--topic", MEDIUM, "--id", "lost", code=1)

    wanted = f"offsets 0 to {count - 1} of partition 1 are kept no longer"
    assert wanted in " ".join(shown.split())
    standing = await find_replay(scene.settings, "lost")
    assert standing.plan.state == "running"
    assert standing.put_back == len(await scene.read(REPLAY_LANE)) == 80 - count


async def test_offsets_without_a_record_at_the_end_are_no_loss(scene: Scene) -> None:
    await scene.ask(4)
    async with (
        AIOKafkaProducer(
            **connection_arguments(scene.settings), transactional_id=scene.settings.topic("writer")
        ) as client,
        client.transaction(),
    ):
        for partition in range(4):
            await client.send(scene.settings.topic(MEDIUM), b"{}", partition=partition)

    shown = await scene.run("replay", "--topic", MEDIUM, "--id", "marked")

    assert "marked is finished: 8 records put back" in shown
    standing = await find_replay(scene.settings, "marked")
    assert standing.done_offsets == standing.plan.offsets == 12  # with the markers of the ends


async def test_the_page_of_a_worker_shows_the_replays(scene: Scene) -> None:
    await scene.ask(7)
    await scene.run("replay", "--topic", MEDIUM, "--id", "shown")
    app = web.Application()
    app.add_routes(replay_routes(scene.settings, SystemClock()))

    async with TestClient(TestServer(app)) as client:
        page = await (await client.get("/replays")).text()
        found = (await (await client.get("/replays.json")).json())["replays"]

    assert "shown" in page
    assert [(each["state"], each["records"], each["done"]) for each in found] == [
        ("finished", 7, 1.0)
    ]
