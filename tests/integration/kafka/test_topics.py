import asyncio
import json
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import InvalidTimestampError
from typer.testing import CliRunner

from cortex_stream.cli.topics import topics_app
from cortex_stream.clock import SystemClock
from cortex_stream.errors import BrokerUnavailable, TopicsMismatch
from cortex_stream.kafka.admin import TopicAdmin, verify_topics
from cortex_stream.kafka.plan import AddPartitions, AlterConfig, CreateTopic, WantedTopic
from cortex_stream.settings.kafka import KafkaSettings
from cortex_stream.settings.tree import Settings
from topics.catalogue import CATALOGUE, FUSED
from topics.names import EVENTS, RESULTS

pytestmark = pytest.mark.integration

LANE = "cortex.requests.high"
CONFIGS = {spec.name: spec.config("dev") for spec in CATALOGUE}


async def alter(settings: Settings, topic: str, config: dict[str, str]) -> None:
    """Set settings by hand, where all others fall back to the defaults, and wait until it shows."""
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_brokers)
    await client.start()
    await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, config)])
    await client.close()
    async with asyncio.timeout(10), TopicAdmin(settings) as admin:
        while (await admin.describe([topic]))[topic].overrides != config:
            await asyncio.sleep(0.05)


async def test_apply_makes_the_cluster_what_the_catalogue_says(settings: Settings) -> None:
    async with TopicAdmin(settings) as admin:
        before = await admin.plan()
        await admin.apply(before.changes)
        after = await admin.plan()
        present = await admin.describe(settings.topic(spec.name) for spec in CATALOGUE)

    assert len(before.changes) == len(FUSED)
    assert (after.changes, after.conflicts) == ((), ())
    assert present.keys() == {settings.topic(spec.name) for spec in FUSED}
    for spec in FUSED:
        topic = present[settings.topic(spec.name)]
        assert (topic.partitions, topic.replication) == (spec.partitions("dev"), 1)
        assert topic.overrides.items() >= spec.config("dev").items()


async def test_a_cluster_without_a_registered_broker_is_asked_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is for a moment after a start, and after a broker was silent for long."""
    brokers = ClusterMetadata.brokers
    clusters: dict[int, ClusterMetadata] = {}

    def not_at_first(cluster: ClusterMetadata) -> Any:
        clusters[id(cluster)] = cluster  # each client has one
        return set() if len(clusters) < 3 else brokers(cluster)

    monkeypatch.setattr(ClusterMetadata, "brokers", not_at_first)

    async with TopicAdmin(settings) as admin:
        plan = await admin.plan()

    assert len(plan.changes) == len(FUSED)
    assert len(clusters) == 3


async def test_a_topic_is_made_once_the_controller_has_its_brokers_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fenced broker is refused as one that does not exist: here they are 98 at first."""
    create, asked = AIOKafkaAdminClient.create_topics, 0

    async def with_brokers_away(client: AIOKafkaAdminClient, topics: list[NewTopic]) -> Any:
        nonlocal asked
        asked += 1
        if asked < 3:
            topics = [NewTopic(topic.name, 1, replication_factor=99) for topic in topics]
        return await create(client, topics)

    monkeypatch.setattr(AIOKafkaAdminClient, "create_topics", with_brokers_away)
    topic = WantedTopic(settings.topic(EVENTS), partitions=1, replication=1, config={})

    async with TopicAdmin(settings) as admin:
        await admin.apply([CreateTopic(topic)])
        assert await admin.describe([topic.name])

    assert asked == 3


async def test_a_cluster_with_too_few_brokers_is_told_after_a_while(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cortex_stream.kafka.admin._REGISTERED_TIMEOUT_S", 0.2)
    too_many = WantedTopic(settings.topic(EVENTS), partitions=1, replication=3, config={})

    async with TopicAdmin(settings) as admin:
        with pytest.raises(BrokerUnavailable, match="replication 3"):
            await admin.apply([CreateTopic(too_many)])


async def test_a_setting_changed_by_hand_is_shown_and_mended_and_foreign_ones_stay(
    applied: Settings,
) -> None:
    results = applied.topic(RESULTS)
    await alter(
        applied,
        results,
        {
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": "1000",
            "min.insync.replicas": "1",
            "cleanup.policy": "delete",
            "segment.ms": "3600000",
        },
    )

    async with TopicAdmin(applied) as admin:
        plan = await admin.plan()
        await admin.apply(plan.changes)
        after = await admin.plan()
        present = (await admin.describe([results]))[results]

    (change,) = plan.changes
    assert isinstance(change, AlterConfig)
    assert change.name == results
    assert change.changes == {"max.message.bytes": ("1000", "8388608")}
    assert after.changes == ()
    assert present.config["max.message.bytes"] == "8388608"
    assert present.overrides["segment.ms"] == "3600000"


async def test_a_retention_chosen_by_an_operator_survives_apply_until_it_is_reset(
    applied: Settings,
) -> None:
    events = applied.topic(EVENTS)
    own = {"retention.ms": "1209600000", "max.message.bytes": "1000"}
    await alter(applied, events, {**CONFIGS[EVENTS], **own})

    async with TopicAdmin(applied) as admin:
        plan = await admin.plan()
        await admin.apply(plan.changes)
        kept = (await admin.describe([events]))[events]
        await admin.apply((await admin.plan(reset=True)).changes)
        reset = (await admin.describe([events]))[events]

    assert [str(chosen) for chosen in plan.chosen] == [
        "retention.ms is 1209600000, the catalogue says 604800000"
    ]
    assert (kept.config["retention.ms"], kept.config["max.message.bytes"]) == (
        "1209600000",
        "1048576",
    )
    assert reset.config["retention.ms"] == "604800000"


async def test_a_topic_is_created_without_a_setting_that_the_broker_does_not_know(
    settings: Settings,
) -> None:
    name = settings.topic("cortex.of-tomorrow")
    config = {"cleanup.policy": "delete", "setting.of.tomorrow": "1"}
    tomorrow = WantedTopic(name, 1, 1, config, dispensable=frozenset({"setting.of.tomorrow"}))

    async with TopicAdmin(settings) as admin:
        await admin.apply([CreateTopic(tomorrow)])
        async with asyncio.timeout(10):
            while name not in (present := await admin.describe([name])):
                await asyncio.sleep(0.05)

    assert present[name].overrides == {"cleanup.policy": "delete"}


@pytest.mark.parametrize("days", [-8, 1])
async def test_a_request_from_another_time_is_refused_and_its_sender_learns_of_it(
    applied: Settings, days: int
) -> None:
    now_ms = SystemClock().unix_ms()
    async with AIOKafkaProducer(bootstrap_servers=applied.kafka_brokers) as client:
        with pytest.raises(InvalidTimestampError):
            await client.send_and_wait(
                applied.topic(LANE), b"{}", timestamp_ms=now_ms + days * 86_400_000
            )


@pytest.mark.parametrize("days", [-6, 0])
async def test_a_request_that_is_kept_long_enough_is_taken(applied: Settings, days: int) -> None:
    now_ms = SystemClock().unix_ms()
    async with AIOKafkaProducer(bootstrap_servers=applied.kafka_brokers) as client:
        place = await client.send_and_wait(
            applied.topic(LANE), b"{}", timestamp_ms=now_ms + days * 86_400_000
        )

    assert place.offset >= 0


async def test_a_lane_with_too_few_partitions_grows(
    settings: Settings, by_hand: AIOKafkaAdminClient
) -> None:
    lane = settings.topic("cortex.requests.high")
    await by_hand.create_topics([NewTopic(lane, 2, 1)])

    async with TopicAdmin(settings) as admin:
        plan = await admin.plan()
        await admin.apply(plan.changes)
        present = (await admin.describe([lane]))[lane]

    assert AddPartitions(lane, 2, 4) in plan.changes
    assert present.partitions == 4


@pytest.mark.parametrize(
    ("name", "partitions", "text"),
    [(EVENTS, 2, "would move keys"), (RESULTS, 8, "cannot take partitions away")],
)
async def test_partitions_that_cannot_be_put_right_are_a_conflict_and_stay(
    settings: Settings,
    by_hand: AIOKafkaAdminClient,
    name: str,
    partitions: int,
    text: str,
) -> None:
    topic = settings.topic(name)
    await by_hand.create_topics([NewTopic(topic, partitions, 1)])

    async with TopicAdmin(settings) as admin:
        await admin.apply((await admin.plan()).changes)
        plan = await admin.plan()
        present = (await admin.describe([topic]))[topic]

    assert [(conflict.name, text in conflict.text) for conflict in plan.conflicts] == [
        (topic, True)
    ]
    assert plan.changes == ()
    assert present.partitions == partitions


async def test_a_foreign_topic_is_never_touched(
    settings: Settings, by_hand: AIOKafkaAdminClient
) -> None:
    foreign = f"{settings.kafka.topic_prefix}-payments"
    await by_hand.create_topics([NewTopic(foreign, 2, 1, topic_configs={"retention.ms": "5000"})])

    async with TopicAdmin(settings) as admin:
        await admin.apply((await admin.plan()).changes)
        present = (await admin.describe([foreign]))[foreign]

    assert present.partitions == 2
    assert present.overrides == {"retention.ms": "5000"}


async def test_two_prefixes_live_side_by_side(applied: Settings) -> None:
    other = applied.model_copy(
        update={"kafka": KafkaSettings(topic_prefix=f"{applied.kafka.topic_prefix}-b")}
    )

    async with TopicAdmin(other) as admin:
        plan = await admin.plan()

    assert {change.name for change in plan.changes} == {other.topic(spec.name) for spec in FUSED}


async def test_a_worker_may_start_once_the_topics_are_applied(applied: Settings) -> None:
    await verify_topics(applied)


async def test_a_worker_does_not_start_without_its_topics_and_says_how_to_get_them(
    applied: Settings, by_hand: AIOKafkaAdminClient
) -> None:
    missing = applied.topic(RESULTS)
    wrong = applied.topic(EVENTS)
    await by_hand.delete_topics([missing])
    async with asyncio.timeout(10):
        while missing in await by_hand.list_topics():
            await asyncio.sleep(0.05)
    await alter(applied, wrong, {**CONFIGS[EVENTS], "max.message.bytes": "1000"})

    with pytest.raises(TopicsMismatch) as caught:
        await verify_topics(applied)

    first, *lines = str(caught.value).splitlines()
    assert first == f"checking the topics at {applied.kafka_brokers}: not what the catalogue says"
    assert sorted(lines) == [
        f"  {wrong}: set max.message.bytes 1000 → 1048576",
        f"  {missing}: create, partitions 4, replication 1",
    ]
    assert caught.value.repair == "cortex-stream topics apply"


async def test_a_worker_starts_although_an_operator_shortened_the_retention(
    applied: Settings,
) -> None:
    events = applied.topic(EVENTS)
    await alter(applied, events, {"retention.ms": "1000", "max.message.bytes": "1048576"})

    await verify_topics(applied)


async def test_what_a_broker_refuses_is_an_error_that_says_so(
    settings: Settings,
) -> None:
    impossible = settings.model_copy(
        update={"kafka": KafkaSettings(topic_prefix=settings.kafka.topic_prefix, profile="prod")}
    )

    async with TopicAdmin(impossible) as admin:
        plan = await admin.plan()
        with pytest.raises(
            BrokerUnavailable, match="create, partitions 12, replication 3"
        ) as caught:
            await admin.apply(plan.changes)

    assert caught.value.repair is None


# ---- the command ---------------------------------------------------------------------------------


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    return {
        "KAFKA_BROKERS": settings.kafka_brokers,
        "CORTEX_KAFKA__TOPIC_PREFIX": settings.kafka.topic_prefix,
        "COLUMNS": "200",
    }


def as_json(environment: dict[str, str], *arguments: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(topics_app, [*arguments, "--json"], env=environment)
    return result.exit_code, json.loads(result.stdout)


def test_apply_is_asked_once_and_then_has_nothing_to_do(environment: dict[str, str]) -> None:
    prefix = environment["CORTEX_KAFKA__TOPIC_PREFIX"]

    planned = as_json(environment, "plan")
    checked, _ = as_json(environment, "plan", "--check")
    applied = as_json(environment, "apply")
    again = as_json(environment, "apply")
    checked_again, _ = as_json(environment, "plan", "--check")

    assert planned[0] == applied[0] == 0
    assert planned[1]["changes"] == applied[1]["changes"]
    assert {change["topic"] for change in applied[1]["changes"]} == {
        f"{prefix}.{spec.name}" for spec in FUSED
    }
    nothing: dict[str, list[str]] = {"changes": [], "chosen": [], "conflicts": [], "unknown": []}
    assert again == (0, {"applied": True, **nothing})
    assert (checked, checked_again) == (1, 0)


async def test_a_conflict_ends_with_exit_code_1_and_its_reason(
    environment: dict[str, str], settings: Settings, by_hand: AIOKafkaAdminClient
) -> None:
    await by_hand.create_topics([NewTopic(settings.topic("cortex.requests.low"), 5, 1)])
    runner = CliRunner()

    # the command runs an event loop of its own, so it needs a thread of its own
    result = await asyncio.to_thread(runner.invoke, topics_app, ["apply"], env=environment)

    assert result.exit_code == 1
    assert "Kafka cannot take partitions away" in " ".join(result.stdout.split())


def test_list_needs_no_broker(environment: dict[str, str]) -> None:
    offline = {**environment, "KAFKA_BROKERS": "127.0.0.1:1"}

    table = CliRunner().invoke(topics_app, ["list"], env=offline)
    code, listed = as_json(offline, "list")

    prefix = environment["CORTEX_KAFKA__TOPIC_PREFIX"]
    assert table.exit_code == code == 0
    assert f"{prefix}.cortex.results" in table.stdout
    assert [topic["name"] for topic in listed["topics"]] == [
        f"{prefix}.{spec.name}" for spec in CATALOGUE
    ]
