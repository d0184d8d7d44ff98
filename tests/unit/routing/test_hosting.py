import pytest

from cortex_stream.routing.hosting import Handoff, Local, feeds, next_hop
from cortex_stream.routing.route import Route, StageName
from cortex_stream.settings.stages import ALL_STAGES
from schemas.priority import Lane, Priority
from topics.names import HANDOVER_STAGES, VALIDATION

EMBEDDING, INFERENCE = StageName.EMBEDDING, StageName.INFERENCE
BOTH = Route((EMBEDDING, INFERENCE), "m@1")


def test_the_stages_that_can_be_hosted_are_validation_and_those_of_routes() -> None:
    assert (VALIDATION, *StageName) == ALL_STAGES
    assert tuple(StageName) == HANDOVER_STAGES


def test_a_hosted_stage_is_next_in_the_process_and_any_other_is_handed_over() -> None:
    hosted = ("validation", "embedding")

    assert next_hop(BOTH, 0, hosted) == Local(EMBEDDING)
    assert next_hop(BOTH, 1, hosted) == Handoff(INFERENCE)
    assert next_hop(BOTH, 0, ()) == Handoff(EMBEDDING)


@pytest.mark.parametrize(
    ("hosted", "wanted"),
    [
        (ALL_STAGES, {None, VALIDATION}),
        (("validation",), {None, VALIDATION}),
        (("validation", "embedding"), {None, VALIDATION}),
        (("validation", "inference"), {None, VALIDATION, INFERENCE}),
        (("embedding", "inference"), {EMBEDDING, INFERENCE}),
        (("embedding",), {EMBEDDING}),
        (("inference",), {INFERENCE}),
    ],
)
def test_a_worker_reads_the_clients_if_it_validates_and_what_others_hand_over_to_it(
    hosted: tuple[str, ...], wanted: set[str | None]
) -> None:
    found = feeds(hosted)

    assert {feed.stage for feed in found} == wanted
    live = [Lane(priority) for priority in Priority]
    lanes_of: dict[str | None, list[Lane | None]] = {
        None: [*live],
        VALIDATION: [Lane.REPLAY, *live, None, None, None],
        EMBEDDING: [*Lane],
        INFERENCE: [*Lane],
    }
    for stage in wanted:
        assert [feed.lane for feed in found if feed.stage is stage] == lanes_of[stage]


def test_retries_wait_for_their_time_and_nothing_else_does() -> None:
    waiting = [feed.topic for feed in feeds(ALL_STAGES) if feed.waits]

    assert waiting == ["cortex.retries.1", "cortex.retries.2", "cortex.retries.3"]


def test_the_replay_lane_takes_only_what_was_put_back() -> None:
    [replay] = [feed for feed in feeds(ALL_STAGES) if feed.topic == "cortex.requests.replay"]

    assert (replay.lane, replay.stage) == (Lane.REPLAY, VALIDATION)


def test_feeds_are_topics_of_the_catalogue() -> None:
    assert [feed.topic for feed in feeds(("inference",))] == [
        f"cortex.stages.inference.{lane.value}" for lane in Lane
    ]
    assert feeds(ALL_STAGES)[0].topic == "cortex.requests.critical"
