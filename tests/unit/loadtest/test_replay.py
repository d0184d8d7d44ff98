"""A replay beside live requests: the turns that are taken, and what their figures say."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cortex_stream.clock import ManualClock
from cortex_stream.errors import OperatorError
from cortex_stream.loadtest.ledger import Ledger
from cortex_stream.loadtest.load import LoadRequest
from cortex_stream.loadtest.meter import Sample, Usage
from cortex_stream.loadtest.profiles import replay
from cortex_stream.loadtest.profiles.replay import Turn, live_goal, measure_replay
from cortex_stream.loadtest.sides import Bench, Measured
from cortex_stream.loadtest.traffic import Traffic
from cortex_stream.registry.store import ModelVersion
from cortex_stream.settings.tree import Settings
from schemas.priority import Lane


def measured(p99_ms: int, *, requests: int = 1) -> Measured:
    """Return a run whose live requests all took so long."""
    ledger = Ledger()
    for index in range(requests):
        ledger.sent(LoadRequest(f"{index}", Lane.MEDIUM, b"", traffic="live"), at_ms=50_000)
        ledger.arrived(b"{}", append_ms=50_000 + p99_ms, key=b"%d" % index)
    samples = [Sample(50_000, Usage(1, 1), 10, 5), Sample(54_000, Usage(3, 1), 13, 6)]
    return Measured(ledger, cpu_s=2.0, peak_rss_bytes=1, samples=samples)


def turns(*p99_ms: tuple[int, int], requests: int = 1) -> list[Turn]:
    return [
        Turn(
            without=measured(without, requests=requests),
            beside=measured(beside, requests=requests),
            replayed=1,
            waiting=1,
        )
        for without, beside in p99_ms
    ]


def test_the_ratio_is_the_median_of_those_of_the_turns_and_the_note_has_all_of_them() -> None:
    goal = live_goal(turns((494, 369), (150, 165), (100, 130)))

    assert goal.measured == pytest.approx(1.1)
    assert goal.verdict == "met"
    assert "by turn 0.75, 1.10, 1.30" in goal.note


def test_runs_without_a_replay_of_neighbouring_turns_say_how_far_equal_runs_are_apart() -> None:
    assert "A/A 0.50, 1.10" in live_goal(turns((200, 1), (100, 1), (110, 1))).note
    assert "A/A" not in live_goal(turns((200, 1))).note


def test_samples_are_counted_over_all_turns() -> None:
    assert "6,000 samples each" in live_goal(turns((1, 1), (1, 1), requests=3000)).note
    assert "4 of 5,000 samples each" in live_goal(turns((1, 1), (1, 1), requests=2)).note


def test_a_turn_without_answers_is_not_measured_and_the_others_count() -> None:
    nothing = measured(1, requests=0)
    silent = Turn(without=nothing, beside=nothing, replayed=0, waiting=0)

    assert live_goal([silent]).verdict == "not measured"
    assert live_goal([silent, *turns((100, 110))]).measured == pytest.approx(1.1)


class FakeKafka:
    """Takes the place of worker, replay command and topics; writes down what is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, left: Sequence[int]) -> None:
        self.done: list[str] = []
        self.seconds: list[float] = []
        self._left = list(left)
        self._outcomes = 0
        fakes: dict[str, Callable[..., Any]] = {
            "running": self.running,
            "burst_rate_per_s": self.burst_rate_per_s,
            "_replaying": self.replaying,
            "_outcomes": self.outcomes,
            "waiting_records": self.waiting,
            "method": lambda bench, **own: {"one measurement": f"{bench.seconds:g} s", **own},
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(replay, name, fake)
        monkeypatch.setattr(replay, "_LOOK_AGAIN_S", 0.0)

    @asynccontextmanager
    async def running(self, *_: object, **__: object) -> AsyncIterator["FakeKafka"]:
        yield self

    async def burst_rate_per_s(self, *_: object, **__: object) -> float:
        return 300.0

    @asynccontextmanager
    async def replaying(self, _: object, __: object, *, replay_id: str) -> AsyncIterator[None]:
        self.done.append(f"begin {replay_id}")
        yield
        self.done.append("end")

    async def outcomes(self, _: object) -> int:
        self._outcomes += 10
        return self._outcomes

    async def waiting(self, _: object) -> int:
        left = self._left.pop(0)
        self.done.append(f"{left} wait")
        return left

    async def run(self, _: Sequence[Traffic], *, name: str, seconds: float) -> Measured:
        self.done.append(name)
        self.seconds.append(seconds)
        return measured(10)


def bench(folder: Path) -> Bench:
    return Bench(
        settings=Settings(),
        model=ModelVersion.__new__(ModelVersion),
        folder=folder,
        cores=1,
        seed=1,
        seconds=60.0,
        peers=False,
        clock=ManualClock(),
        say=lambda _: None,
    )


async def test_runs_without_and_with_a_replay_take_turns_and_each_begins_on_an_empty_lane(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kafka = FakeKafka(monkeypatch, left=(4900, 2400, 0, 4800))

    report = await measure_replay(bench(tmp_path), turns=2)

    assert kafka.done == [
        "replay-without-1",
        "begin bench-1",
        "replay-with-a-replay-1",
        "4900 wait",
        "end",
        "2400 wait",
        "0 wait",
        "replay-without-2",
        "begin bench-2",
        "replay-with-a-replay-2",
        "4800 wait",
        "end",
    ]
    assert kafka.seconds == [30.0] * 4
    waiting = next(goal for goal in report.goals if "wait on the replay lane" in goal.what)
    assert waiting.measured == 4800
    assert [row["replayed"] for row in report.tables["The replays"]] == [10, 10]
    assert [row["of"] for row in report.tables["Live requests, ms"]] == ["live"] * 4
    assert report.method["one measurement"] == "30 s"
    assert list(report.charts) == ["turn 1", "turn 2"]


async def test_a_lane_that_does_not_get_empty_ends_the_profile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(replay, "_EMPTY_WITHIN_S", 0.0)
    FakeKafka(monkeypatch, left=[4900] * 100_000)

    with pytest.raises(OperatorError, match="emptying the replay lane"):
        await measure_replay(bench(tmp_path), turns=2)
