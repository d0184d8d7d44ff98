from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.kafka.plan import (
    AddPartitions,
    AlterConfig,
    Change,
    Chosen,
    CreateTopic,
    PresentTopic,
    WantedTopic,
    decide_plan,
    wanted_topics,
)
from topics.catalogue import CURRENT

WANTED = wanted_topics(CURRENT, profile="prod", prefix="staging")
LANE = WantedTopic("lane", 4, 1, {"retention.ms": "7", "max.message.bytes": "8"})


def as_wanted(topic: WantedTopic) -> PresentTopic:
    return PresentTopic(topic.name, topic.partitions, topic.replication, topic.config, topic.config)


def by_name(topics: Iterable[PresentTopic]) -> dict[str, PresentTopic]:
    return {topic.name: topic for topic in topics}


def carried_out(
    present: dict[str, PresentTopic], changes: Iterable[Change]
) -> dict[str, PresentTopic]:
    """Return what a cluster would be after `changes`."""
    after = dict(present)
    for change in changes:
        match change:
            case CreateTopic(topic=topic):
                after[topic.name] = as_wanted(topic)
            case AlterConfig(name=name, changes=settings):
                made = {key: new for key, (_, new) in settings.items()}
                after[name] = replace(after[name], config={**after[name].config, **made})
            case AddPartitions(name=name, wanted=wanted):
                after[name] = replace(after[name], partitions=wanted)
    return after


@st.composite
def clusters(draw: st.DrawFn) -> dict[str, PresentTopic]:
    """Any cluster: some of our topics, each a little or far off, and some of other people."""
    foreign = PresentTopic("payments", 3, 1, {"retention.ms": "1"}, {})
    topics = [foreign]
    for topic in draw(st.lists(st.sampled_from(WANTED), unique_by=lambda topic: topic.name)):
        config = {key: draw(st.sampled_from([value, "1"])) for key, value in topic.config.items()}
        topics.append(
            PresentTopic(
                topic.name,
                draw(st.integers(1, 24)),
                draw(st.integers(1, 3)),
                config,
                config,
            )
        )
    return by_name(topics)


@given(clusters())
def test_carrying_out_a_plan_leaves_nothing_but_its_conflicts(
    present: dict[str, PresentTopic],
) -> None:
    plan = decide_plan(WANTED, present)

    again = decide_plan(WANTED, carried_out(present, plan.changes))

    assert again.changes == ()
    assert again.conflicts == plan.conflicts
    assert again.chosen == plan.chosen


@given(clusters())
def test_carrying_out_a_plan_that_resets_leaves_no_setting_to_differ(
    present: dict[str, PresentTopic],
) -> None:
    plan = decide_plan(WANTED, present, reset=True)

    again = decide_plan(WANTED, carried_out(present, plan.changes))

    assert (plan.chosen, again.changes, again.chosen) == ((), (), ())


@given(clusters())
def test_a_plan_only_ever_adds_and_names_no_foreign_topic(present: dict[str, PresentTopic]) -> None:
    plan = decide_plan(WANTED, present)

    after = carried_out(present, plan.changes)
    assert after["payments"] == present["payments"]
    assert after.keys() >= present.keys()
    assert all(after[name].partitions >= topic.partitions for name, topic in present.items())
    assert {item.name for item in (*plan.changes, *plan.conflicts)} <= {
        topic.name for topic in WANTED
    }


def test_an_empty_cluster_gets_every_topic() -> None:
    plan = decide_plan(WANTED, {})

    assert plan.changes == tuple(CreateTopic(topic) for topic in WANTED)
    assert plan.blocking == plan.changes


def test_a_cluster_as_wanted_needs_nothing() -> None:
    plan = decide_plan(WANTED, by_name(as_wanted(topic) for topic in WANTED))

    assert (plan.changes, plan.conflicts) == ((), ())


def test_a_changed_setting_is_shown_with_both_values() -> None:
    present = replace(as_wanted(LANE), config={**LANE.config, "max.message.bytes": "1"})

    plan = decide_plan([LANE], by_name([present]))

    assert plan.changes == (AlterConfig("lane", {"max.message.bytes": ("1", "8")}),)
    assert str(plan.changes[0]) == "set max.message.bytes 1 → 8"


KEPT_LONGER = PresentTopic(
    "lane", 4, 1, {**LANE.config, "retention.ms": "14"}, {"retention.ms": "14"}
)


def test_a_retention_that_was_set_on_the_topic_is_shown_and_stays() -> None:
    plan = decide_plan([LANE], by_name([KEPT_LONGER]))

    assert plan.changes == ()
    assert plan.chosen == (Chosen("lane", {"retention.ms": ("14", "7")}),)
    assert str(plan.chosen[0]) == "retention.ms is 14, the catalogue says 7"


def test_a_retention_that_was_set_on_the_topic_is_taken_back_when_asked() -> None:
    plan = decide_plan([LANE], by_name([KEPT_LONGER]), reset=True)

    assert plan.changes == (AlterConfig("lane", {"retention.ms": ("14", "7")}),)
    assert plan.chosen == ()


def test_a_retention_that_nobody_set_on_the_topic_becomes_the_catalogues() -> None:
    plan = decide_plan([LANE], by_name([replace(KEPT_LONGER, overrides={})]))

    assert plan.changes == (AlterConfig("lane", {"retention.ms": ("14", "7")}),)


def test_a_promise_is_kept_whoever_set_what_breaks_it() -> None:
    small = {**LANE.config, "max.message.bytes": "1"}

    plan = decide_plan([LANE], by_name([PresentTopic("lane", 4, 1, small, small)]))

    assert plan.changes == (AlterConfig("lane", {"max.message.bytes": ("1", "8")}),)


def test_a_setting_that_an_old_broker_does_not_know_is_left_out() -> None:
    bounded = replace(LANE, config={**LANE.config, "message.timestamp.before.max.ms": "7"})

    plan = decide_plan([bounded], by_name([as_wanted(LANE)]))

    assert plan.changes == ()
    assert plan.unknown == {"message.timestamp.before.max.ms"}


def test_the_order_within_a_list_is_no_difference() -> None:
    vectors = WantedTopic("v", 1, 1, {"cleanup.policy": "compact,delete"})
    present = replace(as_wanted(vectors), config={"cleanup.policy": "delete,compact"})

    assert decide_plan([vectors], by_name([present])).changes == ()


def test_missing_partitions_are_added_where_keys_may_move() -> None:
    plan = decide_plan([LANE], by_name([replace(as_wanted(LANE), partitions=2)]))

    assert plan.changes == (AddPartitions("lane", 2, 4),)
    assert plan.conflicts == ()


def test_missing_partitions_are_a_conflict_where_keys_must_stay() -> None:
    events = replace(LANE, key_bound=True)

    plan = decide_plan([events], by_name([replace(as_wanted(events), partitions=2)]))

    assert plan.changes == ()
    assert "would move keys" in plan.conflicts[0].text


@pytest.mark.parametrize("key_bound", [False, True])
def test_more_partitions_than_wanted_are_a_conflict(*, key_bound: bool) -> None:
    topic = replace(LANE, key_bound=key_bound)

    plan = decide_plan([topic], by_name([replace(as_wanted(topic), partitions=8)]))

    assert plan.changes == ()
    assert plan.conflicts[0].text == (
        "has 8 partitions, the catalogue says 4; Kafka cannot take partitions away"
    )


def test_another_replication_is_a_conflict() -> None:
    plan = decide_plan([LANE], by_name([replace(as_wanted(LANE), replication=3)]))

    assert plan.changes == ()
    assert "has replication 3, the catalogue says 1" in plan.conflicts[0].text


def test_a_worker_runs_with_another_retention_and_with_fewer_partitions() -> None:
    present = PresentTopic("lane", 2, 1, {**LANE.config, "retention.ms": "1"}, {})

    plan = decide_plan([LANE], by_name([present]))

    assert len(plan.changes) == 2
    assert plan.blocking == ()


def test_a_worker_does_not_run_when_a_setting_breaks_a_promise() -> None:
    present = PresentTopic("lane", 4, 1, {"retention.ms": "1", "max.message.bytes": "1"}, {})

    plan = decide_plan([LANE], by_name([present]))

    assert plan.blocking == plan.changes
