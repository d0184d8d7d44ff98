import re

import pytest

from cortex_stream.kafka.plan import wanted_topics
from cortex_stream.settings.kafka import KafkaSettings
from cortex_stream.settings.tree import Settings
from schemas.export import EXPORTED
from schemas.priority import Lane, Priority
from topics import names
from topics.catalogue import (
    CATALOGUE,
    CURRENT,
    Profile,
    TopicSpec,
    needed_topics,
    replication,
)

DAY_MS = 86_400_000
BY_NAME = {spec.name: spec for spec in CATALOGUE}
LANES = [BY_NAME[names.request_topic(lane)] for lane in Lane]


def config(name: str, key: str, profile: Profile = "prod") -> str:
    return BY_NAME[name].config(profile)[key]


def test_topics_lanes_have_4_partitions_in_dev_and_12_in_prod() -> None:
    assert {spec.partitions("dev") for spec in LANES} == {4}
    assert {spec.partitions("prod") for spec in LANES} == {12}


def test_requests_and_results_are_kept_7_days_and_dead_letters_30() -> None:
    week, month = str(7 * DAY_MS), str(30 * DAY_MS)

    assert {spec.config("dev")["retention.ms"] for spec in LANES} == {week}
    assert config(names.RESULTS, "retention.ms") == week
    assert config(names.DEAD_LETTERS, "retention.ms") == month
    assert config(names.AUDIT, "retention.ms") == str(90 * DAY_MS)


def test_a_record_is_on_1_broker_in_dev_and_on_3_of_which_2_must_confirm_in_prod() -> None:
    assert (replication("dev"), replication("prod")) == (1, 3)
    assert {spec.config("dev")["min.insync.replicas"] for spec in CATALOGUE} == {"1"}
    assert {spec.config("prod")["min.insync.replicas"] for spec in CATALOGUE} == {"2"}


def test_outcomes_carry_the_brokers_time_and_nothing_else_does() -> None:
    by_broker = {
        spec.name
        for spec in CATALOGUE
        if spec.config("dev")["message.timestamp.type"] == "LogAppendTime"
    }

    assert by_broker == {names.RESULTS, names.REPLAYS}


def test_requests_results_and_dead_letters_may_weigh_8_mib() -> None:
    heavy = [*LANES, BY_NAME[names.RESULTS], BY_NAME[names.DEAD_LETTERS]]

    assert {spec.config("dev")["max.message.bytes"] for spec in heavy} == {"8388608"}


def test_only_the_topics_that_mean_the_latest_of_a_key_are_compacted() -> None:
    compacted = {
        spec.name: spec.cleanup_policy for spec in CATALOGUE if "compact" in spec.cleanup_policy
    }

    forgetting = {names.LAKE_VECTORS: "compact,delete", names.ATTEMPTS: "compact,delete"}
    assert compacted == {**forgetting, names.MODELS: "compact"}


def test_the_prefix_puts_the_whole_system_under_it() -> None:
    settings = Settings(kafka=KafkaSettings(topic_prefix="staging"))

    wanted = wanted_topics(CATALOGUE, profile="dev", prefix=settings.kafka.topic_prefix)

    assert [topic.name for topic in wanted] == [settings.topic(spec.name) for spec in CATALOGUE]
    assert all(topic.name.startswith("staging.") for topic in wanted)
    assert settings.group.startswith("staging.")


def test_without_a_prefix_the_names_are_those_of_the_catalogue() -> None:
    wanted = wanted_topics(CATALOGUE, profile="dev", prefix="")

    assert [topic.name for topic in wanted] == [spec.name for spec in CATALOGUE]


@pytest.mark.parametrize("spec", CATALOGUE, ids=lambda spec: spec.name)
def test_a_name_is_one_that_kafka_takes_under_a_long_prefix(spec: TopicSpec) -> None:
    # 249 is Kafka's limit; "." and "_" in one name may collide in Kafka's own metrics
    assert re.fullmatch(r"[a-z0-9.-]{1,120}", spec.name)


def test_every_topic_is_listed_once() -> None:
    assert len(BY_NAME) == len(CATALOGUE)


def test_every_exported_message_has_a_topic_and_every_message_of_a_topic_is_exported() -> None:
    carried = {message for spec in CURRENT for message in spec.messages}

    assert carried == set(EXPORTED)


def test_hand_over_topics_are_needed_only_where_stages_are_split_one_for_each_stage_and_lane() -> (
    None
):
    fused, split = ({spec.name for spec in needed_topics(split=each)} for each in (False, True))

    assert split - fused == {
        f"cortex.stages.{stage}.{lane}"
        for stage in ("embedding", "inference")
        for lane in ("critical", "high", "medium", "low", "replay")
    }
    assert fused < split


def test_clients_topics_refuse_what_retention_would_delete_and_topics_of_ours_refuse_nothing() -> (
    None
):
    bounds = {
        spec.name: (
            spec.config("prod").get("message.timestamp.before.max.ms"),
            spec.config("prod").get("message.timestamp.after.max.ms"),
        )
        for spec in CATALOGUE
    }

    clients = {names.request_topic(Lane(priority)) for priority in Priority} | {names.EVENTS}
    assert {name for name, found in bounds.items() if found != (None, None)} == clients
    assert {bounds[name] for name in clients} == {(str(7 * DAY_MS), str(DAY_MS // 24))}


def test_a_hand_over_topic_keeps_what_a_lane_keeps() -> None:
    lane, stage = BY_NAME["cortex.requests.replay"], BY_NAME["cortex.stages.embedding.high"]

    for profile in ("dev", "prod"):
        assert stage.config(profile) == lane.config(profile)
        assert stage.partitions(profile) == lane.partitions(profile)
