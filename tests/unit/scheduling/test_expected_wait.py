"""What rows that begin tell about the pace of their lane."""

import pytest

from cortex_stream.scheduling.expected_wait import BATCHES, KNOWN_FOR_S, ExpectedWait, Pace
from schemas.priority import Lane

BATCH_S = 0.08
TOKENS = (5, 15, 10, 10)  # of the rows of a batch
TOKEN_S = BATCH_S / sum(TOKENS)


class Line:
    """A lane whose batches begin one after another."""

    def __init__(self) -> None:
        self.expected = ExpectedWait()
        self.now_s = 1000.0

    def serve(
        self,
        batches: int,
        *,
        begun_before: int = 0,
        batch_s: float = BATCH_S,
        lane: Lane = Lane.LOW,
    ) -> None:
        for _ in range(batches):
            for tokens in TOKENS:
                self.expected.began(
                    lane, tokens=tokens, begun_before=begun_before, now_s=self.now_s
                )
            self.now_s += batch_s

    @property
    def begun(self) -> int:
        return self.expected.begun(Lane.LOW)

    @property
    def pace(self) -> Pace | None:
        return self.expected.pace(Lane.LOW, now_s=self.now_s)

    @property
    def token_s(self) -> float | None:
        return None if self.pace is None else self.pace.token_s


@pytest.fixture
def line() -> Line:
    return Line()


def test_the_pace_is_what_eight_batches_took_while_a_row_waited(line: Line) -> None:
    line.serve(BATCHES + 1)

    assert line.token_s == pytest.approx(TOKEN_S)
    assert line.pace is not None
    assert line.pace.tokens == BATCHES * sum(TOKENS)


def test_before_eight_batches_have_taken_their_time_nothing_is_known(line: Line) -> None:
    line.serve(BATCHES)

    assert line.pace is None


def test_nothing_is_known_of_another_lane(line: Line) -> None:
    line.serve(BATCHES + 1)

    assert line.expected.pace(Lane.HIGH, now_s=line.now_s) is None
    assert line.expected.begun(Lane.HIGH) == 0
    assert line.begun == len(TOKENS) * (BATCHES + 1)


def test_rows_that_came_later_do_not_know_whether_the_lane_had_work_before(line: Line) -> None:
    line.serve(1)
    line.serve(BATCHES, begun_before=1)

    assert line.pace is None


def test_a_pace_that_changes_is_followed_in_eight_batches(line: Line) -> None:
    line.serve(100)
    line.serve(BATCHES + 1, batch_s=3 * BATCH_S)

    assert line.token_s == pytest.approx(3 * TOKEN_S)


def test_a_pause_counts_for_eight_batches(line: Line) -> None:
    line.serve(100)
    line.now_s += 1.0
    line.serve(BATCHES)
    slow_s = line.token_s
    line.serve(1)

    assert slow_s is not None
    assert slow_s > 2 * TOKEN_S
    assert line.token_s == pytest.approx(TOKEN_S)


def test_after_a_pause_those_that_came_in_it_say_nothing_of_it(line: Line) -> None:
    line.serve(100)
    came_behind = line.begun
    line.now_s += KNOWN_FOR_S + 1

    line.serve(BATCHES, begun_before=came_behind)

    assert line.pace is None


def test_what_was_learned_is_forgotten_when_nobody_tells_it_again_for_two_seconds(
    line: Line,
) -> None:
    line.serve(BATCHES + 1)
    line.now_s += KNOWN_FOR_S - BATCH_S
    assert line.pace is not None

    line.now_s += 0.01

    assert line.pace is None


def test_rows_of_one_moment_are_one_batch(line: Line) -> None:
    for _ in range(100):
        line.serve(1, batch_s=0.0)

    assert line.pace is None
