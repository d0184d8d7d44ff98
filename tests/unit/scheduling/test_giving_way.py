"""Replays give way: live rows interrupt them, and they run to their end later."""

import threading
from collections.abc import Sequence

from cortex_stream.clock import Clock, ManualClock
from cortex_stream.errors import RunInterrupted
from cortex_stream.inference.tensors import FloatRows
from cortex_stream.inference.tokenizer import TokenRow
from cortex_stream.scheduling.dispatcher import Dispatcher
from cortex_stream.scheduling.health import HealthRule
from cortex_stream.scheduling.spare_time import QUIET_S, SpareTime
from cortex_stream.scheduling.waiting import MAX_INTERRUPTIONS
from cortex_stream.task_scope import TaskScope
from cortex_stream.telemetry.metrics import REGISTRY
from schemas.priority import Lane
from tests.unit.scheduling.desk import Desk, PickyRunner, name_of, text, until

REPLAYED = range(100, 200)


class Patient(PickyRunner):
    """Holds each run of a replay until it is interrupted or `finish` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.finish = threading.Event()
        self.holding = threading.Event()
        self.interrupted = 0
        self._go_on = threading.Event()

    def run(self, rows: Sequence[TokenRow]) -> FloatRows:
        before = self.interrupted
        if name_of(rows[0]) in REPLAYED:
            self.holding.set()
            while not self.finish.is_set() and self.interrupted == before:
                self._go_on.wait()
                self._go_on.clear()
            self.holding.clear()
            if self.interrupted != before:
                raise RunInterrupted("interrupted")
        return super().run(rows)

    def interrupt(self) -> None:
        self.interrupted += 1
        self._go_on.set()

    def close(self) -> None:
        super().close()
        self.let_finish()

    def let_finish(self) -> None:
        self.finish.set()
        self._go_on.set()


def interruptions() -> float:
    name = "cortex_runs_interrupted_total"
    return REGISTRY.get_sample_value(name, {"model": "stub@1"}) or 0.0


async def ask(dispatcher: Dispatcher[TokenRow], name: int) -> None:
    lane = Lane.REPLAY if name in REPLAYED else Lane.LOW
    _ = await dispatcher.submit([text(name)], lane=lane, tenant="//a", deadline=None)


async def test_a_live_row_does_not_wait_for_a_replay(desk: Desk, tasks: TaskScope) -> None:
    before = interruptions()
    runner = Patient()
    dispatcher = await desk.open(runner)
    replay = tasks.start(ask(dispatcher, 100), name="replay")
    await until(runner.holding.is_set)

    await ask(dispatcher, 1)

    assert not replay.done()
    assert runner.interrupted == 1
    runner.let_finish()
    await replay
    assert runner.ran[0] == [1]
    assert runner.ran[-1] == [100]
    assert dispatcher.runners()[0].failures == 0
    assert interruptions() == before + 1


async def test_a_replay_that_gave_way_often_enough_runs_to_its_end(
    desk: Desk, tasks: TaskScope
) -> None:
    runner = Patient()
    dispatcher = await desk.open(runner)
    replay = tasks.start(ask(dispatcher, 100), name="replay")

    for number in range(MAX_INTERRUPTIONS):
        await until(runner.holding.is_set)
        await ask(dispatcher, number)
    await until(runner.holding.is_set)
    late = tasks.start(ask(dispatcher, 50), name="has to wait")
    await until(lambda: len(dispatcher.queue) == 1)

    assert runner.interrupted == MAX_INTERRUPTIONS
    runner.let_finish()
    await replay
    await late


async def test_a_cancelled_replay_that_gave_way_does_not_run_again(
    desk: Desk, tasks: TaskScope
) -> None:
    runner = Patient()
    dispatcher = await desk.open(runner)
    replay = tasks.start(ask(dispatcher, 100), name="replay")
    await until(runner.holding.is_set)
    _ = replay.cancel()

    await ask(dispatcher, 1)
    await ask(dispatcher, 2)

    assert runner.ran == [[1], [2]]
    assert len(dispatcher.queue) == 0


async def held(
    desk: Desk, *, clock: Clock, runners: int
) -> tuple[list[Patient], Dispatcher[TokenRow]]:
    """Return runners without work, beside which live rows have just come."""
    patients = [Patient() for _ in range(runners)]
    dispatcher = await desk.open(*patients, clock=clock, max_rows=1)
    await ask(dispatcher, 0)
    return patients, dispatcher


async def test_replays_take_less_than_half_of_the_runners_beside_live_rows(
    desk: Desk, tasks: TaskScope
) -> None:
    clock = ManualClock()
    patients, dispatcher = await held(desk, clock=clock, runners=4)

    for name in REPLAYED[:6]:
        _ = tasks.start(ask(dispatcher, name), name=f"replay {name}")
    await until(lambda: dispatcher.busy == 2 and len(dispatcher.queue) == 4)

    clock.advance_s(QUIET_S + 0.1)
    await until(lambda: dispatcher.busy == 4)

    for patient in patients:
        patient.let_finish()


async def test_a_live_row_interrupts_nobody_while_most_runners_are_free(
    desk: Desk, tasks: TaskScope
) -> None:
    patients, dispatcher = await held(desk, clock=ManualClock(), runners=4)
    _ = tasks.start(ask(dispatcher, 100), name="replay")
    await until(lambda: dispatcher.busy == 1)

    await ask(dispatcher, 1)

    assert not any(patient.interrupted for patient in patients)
    for patient in patients:
        patient.let_finish()


async def test_live_rows_of_one_model_interrupt_replays_of_another(
    desk: Desk, tasks: TaskScope
) -> None:
    clock = ManualClock()
    spare = SpareTime(clock=clock)
    never = HealthRule(probe_every_s=1000)  # nor does anybody look again for another reason
    asked, replaying = PickyRunner(), Patient()
    live = await desk.open(asked, PickyRunner(), clock=clock, spare=spare, health=never)
    other = await desk.open(replaying, clock=clock, spare=spare, health=never)
    replay = tasks.start(ask(other, 100), name="replay")
    await until(replaying.holding.is_set)
    asked.released.clear()

    answered = tasks.start(ask(live, 1), name="live")
    await until(lambda: replaying.interrupted == 1 and other.busy == 0)
    assert len(other.queue) == 1

    asked.released.set()
    await answered
    await until(replaying.holding.is_set)
    replaying.let_finish()
    await replay
