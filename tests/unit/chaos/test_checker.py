"""Each invariant, violated once: the checker must see it, and nothing else."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.checker import RULES
from tests.unit.chaos.rounds import LANE, OF_FAULTS, RESULTS, Story, found, well

JUDGES = (
    "checker",
    "bounds",
    "replayed",
    "figures",
    "recovery",
    "case",
    "identity",
    "evidence",
    "history",
)


def test_a_round_in_which_all_went_well_has_no_violation() -> None:
    verdict = well().verdict()

    assert verdict.holds, verdict.violations
    assert set(verdict.violations) == set(RULES) - set(OF_FAULTS)
    assert verdict.figures["lost"] == verdict.figures["repeated"] == 0


def test_a_request_without_an_outcome_is_lost() -> None:
    story = well()
    story.ask("e")

    assert found(story) == {"I1"}
    assert story.verdict().figures["lost"] == 1


def test_a_request_that_the_broker_confirmed_and_does_not_have_is_lost() -> None:
    story = well()
    story.sent.append(replace(story.sent[0], number=99, offset=99))

    assert found(story) == {"I1"}


def test_a_request_of_which_nobody_knows_must_be_answered_once_it_is_on_the_topic() -> None:
    story = well()
    story.ask("e")
    story.sent[-1] = replace(story.sent[-1], state="info", partition=-1, offset=-1)

    assert found(story) == {"I1"}


def test_a_request_that_never_reached_the_topic_needs_no_outcome() -> None:
    story = well()
    story.sent.append(replace(story.sent[0], number=99, state="info", partition=-1, offset=-1))

    assert found(story) == set()


def test_a_request_may_not_end_otherwise_than_asked() -> None:
    story = well()
    good = story.ask("e")
    story.answer(good, ending="dead_letter")
    story.letter(good)

    assert found(story) == {"I1"}


def test_an_outcome_that_answers_nothing_is_noticed() -> None:
    story = well()
    story.answer(story.ask("e"))
    story.records[LANE].pop()
    story.sent.pop()

    assert found(story) == {"I1"}


def test_two_results_that_differ_under_one_outcome_id_conflict() -> None:
    story = well()
    asked = story.ask("e")
    story.answer(asked)
    story.answer(asked, vector="other")

    assert "I2" in found(story)


def test_a_later_expiry_is_ignored_and_a_later_rejection_is_not() -> None:
    late, refused = well(), well()
    for story, ending in ((late, "expired"), (refused, "rejected")):
        asked = story.ask("e", kind="patient", deadline_ms=1)
        story.answer(asked)
        story.answer(asked, ending=ending)

    assert "I2" not in found(late)
    assert "I2" in found(refused)


def test_another_model_conflicts_in_a_result_and_not_in_an_expiry() -> None:
    answered, late = well(), well()
    for story, ending in ((answered, "result"), (late, "expired")):
        asked = story.ask("e", kind="patient", deadline_ms=1)
        story.answer(asked, ending=ending)
        story.answer(asked, ending=ending, digest="sha256:1")

    assert "I2" in found(answered)
    assert "I2" not in found(late)


@pytest.mark.parametrize(("code", "noticed"), [("conflict", False), ("invalid_field", True)])
def test_only_a_conflict_may_be_seen_once_and_not_again(code: str, *, noticed: bool) -> None:
    story = well()
    asked = story.ask("e", kind="conflict")
    story.answer(asked, ending="rejected", code=code)
    story.letter(asked)
    story.answer(asked)

    assert ("I2" in found(story)) is noticed


def test_the_answer_to_another_text_is_noticed() -> None:
    story = well()
    story.answer(story.ask("e"), vector="v(a)")

    assert found(story) == {"I2"}


def test_a_commit_past_a_request_without_outcome_is_noticed_although_it_was_answered_later() -> (
    None
):
    story = well()
    asked = story.ask("e")
    story.die(committed=5)
    story.answer(asked)

    assert found(story) == {"I3"}


def test_a_commit_before_the_dead_letter_is_noticed() -> None:
    story = well()
    refused = story.ask("e", kind="malformed")
    story.answer(refused, ending="rejected")
    story.die(committed=5)
    story.letter(refused)

    assert found(story) == {"I3"}


def test_a_commit_past_an_event_without_effect_is_noticed() -> None:
    story = Story()
    story.happen("s", 1)
    story.die(committed=1)
    story.effect("s", 1)

    assert found(story) == {"I3"}


def test_a_commit_after_a_hand_over_is_true_until_the_hand_over_is_committed_without_outcome() -> (
    None
):
    # given
    story = well()
    asked = story.ask("e")
    topic = "cortex.retries.1"
    said = b'{"topic":"chaos-test.%s","partition":0,"offset":%d,"attempt":1}' % (
        LANE.encode(),
        asked.offset,
    )
    story.add(topic, asked.value or b"", headers=[("cortex_handover", said)])
    story.die(committed=5)
    waiting = found(story)

    # when
    story.snapshots[-1] = replace(
        story.snapshots[-1], committed={**story.snapshots[-1].committed, (topic, 0): 1}
    )

    # then
    assert waiting == {"I1"}  # no outcome yet, but the commit was right
    assert found(story) == {"I1", "I3"}


def test_effects_out_of_order_are_noticed_and_repeated_ones_are_not() -> None:
    swapped, repeated = Story(), Story()
    for number in (1, 2, 3):
        for story in (swapped, repeated):
            story.happen("s", number)
    for number in (2, 1, 3):
        swapped.effect("s", number)
    for number in (1, 2, 1, 2, 3):
        repeated.effect("s", number)

    assert found(swapped) == {"I4"}
    assert found(repeated) == set()


def test_an_event_without_effect_is_noticed() -> None:
    story = Story()
    story.happen("s", 1)

    assert found(story) == {"I4"}


def test_an_offset_that_goes_back_is_noticed() -> None:
    story = well()
    story.look(at_ms=400, committed=3, end=4)

    assert found(story) == {"I5"}


def test_slow_critical_requests_are_noticed() -> None:
    story = Story()
    asked = story.ask("e")
    asked = story.records[LANE].pop()
    critical = replace(asked, topic="cortex.requests.critical")
    story.records[critical.topic] = [critical]
    story.sent[0] = replace(story.sent[0], topic=critical.topic)
    story.answer(critical, at_ms=1500)

    assert found(story) == {"I6"}


@pytest.mark.parametrize("grown", [{"rss_bytes": 800 << 20}, {"fds": 300}, {"fds": 60}])
def test_a_worker_that_grows_is_noticed(grown: dict[str, int]) -> None:
    story = well()
    story.look(at_ms=400, committed=4, end=4, **grown)

    assert found(story) == {"I7"}


def test_an_expiry_without_a_deadline_and_a_result_long_after_one_are_noticed() -> None:
    without, late = well(), well()
    without.answer(without.ask("e", kind="expired"), ending="expired")
    asked = late.ask("e", kind="patient", deadline_ms=1_700_000_000_000)
    late.answer(asked, at_ms=5000)

    assert found(without) == {"I8"}
    assert found(late) == {"I8"}


def test_a_partition_that_stands_still_for_30_s_after_healing_is_noticed() -> None:
    stuck, moving = Story(), Story()
    for story in (stuck, moving):
        story.deed("heal")
        for at_s in range(40):
            story.look(at_ms=at_s * 1000, committed=3 if story is stuck else at_s)

    assert found(stuck) == {"I10"}
    assert found(moving) == set()


def test_a_failure_without_a_dead_letter_is_noticed() -> None:
    story = well()
    story.answer(story.ask("e", kind="malformed"), ending="rejected")

    assert found(story) == {"I12"}


@pytest.mark.parametrize(
    "changed", [{"value": b"other"}, {"key": b"other"}, {"headers": (("foreign", b""),)}]
)
def test_a_dead_letter_that_differs_from_its_record_is_noticed(changed: dict[str, object]) -> None:
    story = well()
    refused = story.ask("e", kind="malformed")
    story.answer(refused, ending="rejected")
    story.letter(refused, **changed)

    assert found(story) == {"I12"}


def test_a_dead_letter_of_an_answered_request_is_noticed() -> None:
    story = well()
    asked = story.ask("e")
    story.answer(asked)
    story.letter(asked)

    assert found(story) == {"I12"}


def test_what_was_finished_since_the_last_commit_may_be_done_again_and_nothing_else() -> None:
    # given: both answered again; of only one was the offset not committed
    excused, repeated = well(), well()
    for story, committed in ((excused, 4), (repeated, 5)):
        asked = story.ask("e")
        story.answer(asked, at_ms=900)
        story.die(committed=committed, ends={})
        story.answer(asked)

    # then
    assert found(excused) == set()
    assert found(repeated) == {"repeats"}


def test_an_outcome_that_stays_uncommitted_for_long_is_noticed() -> None:
    story = well()
    story.answer(story.ask("e"))
    story.die(committed=4, at_ms=60_000)

    assert found(story) == {"repeats"}


def test_a_worker_that_ends_by_itself_is_noticed() -> None:
    story = well()
    story.deed("exit", code=1, expected=False)

    assert found(story) == {"exits"}


@pytest.mark.parametrize("judge", JUDGES)
def test_the_judge_shares_no_code_with_the_worker(judge: str) -> None:
    chaos = Path(__file__).parents[2] / "chaos"
    tree = ast.parse((chaos / f"{judge}.py").read_text(encoding="utf-8"))
    imported = {
        node.module if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }

    ours = {name for name in imported if name and name.split(".")[0] in {"agents", "cortex_stream"}}

    assert ours == set()
    assert {name for name in imported if name and name.startswith("tests.")} <= {
        f"tests.chaos.{each}" for each in JUDGES
    }


def test_results_of_one_outcome_id_in_two_partitions_have_no_first() -> None:
    story = well()
    asked = story.ask("e")
    story.answer(asked)
    story.answer(asked)
    story.records[RESULTS][-1] = replace(story.records[RESULTS][-1], partition=1)

    assert "I2" in found(story)
