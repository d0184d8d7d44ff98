"""Who enters where only so many may be inside."""

import asyncio
from collections.abc import Callable

import pytest

from cortex_stream.deadline import Deadline
from cortex_stream.scheduling.fair_gate import FairGate
from schemas.priority import Lane


class Crowd:
    """Those who want to enter, each in a task of its own; whoever is inside stays until told."""

    def __init__(self, gate: FairGate) -> None:
        self.gate = gate
        self.entered: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._leave: dict[str, asyncio.Event] = {}

    async def comes(
        self,
        name: str,
        *,
        lane: Lane = Lane.MEDIUM,
        tenant: str = "//a",
        deadline: Deadline | None = None,
    ) -> None:
        async def stay() -> None:
            async with self.gate.entered(lane=lane, tenant=tenant, deadline=deadline):
                self.entered.append(name)
                await self._leave[name].wait()

        self._leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.ensure_future(stay())
        await turns()

    async def leaves(self, name: str) -> None:
        self._leave[name].set()
        await turns()

    async def all_leave(self) -> list[str]:
        for name in self._leave:
            self._leave[name].set()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        return self.entered


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_enter_than_there_are_places() -> None:
    crowd = Crowd(FairGate(2))
    for name in "abc":
        await crowd.comes(name)

    inside, full = list(crowd.entered), crowd.gate.full
    await crowd.leaves("a")

    assert (inside, full) == (["a", "b"], True)
    assert await crowd.all_leave() == ["a", "b", "c"]
    assert not crowd.gate.full


async def test_a_newcomer_does_not_wait_behind_all_of_a_flood() -> None:
    crowd = Crowd(FairGate(1))
    for number in range(20):
        await crowd.comes(f"flood {number}", tenant="//flood")
    await crowd.comes("quiet", tenant="//quiet")

    order = await crowd.all_leave()

    assert order.index("quiet") <= 2


async def test_a_critical_one_passes_the_low_ones_that_wait() -> None:
    crowd = Crowd(FairGate(1))
    await crowd.comes("inside", lane=Lane.LOW)
    for number in range(5):
        await crowd.comes(f"low {number}", lane=Lane.LOW)
    await crowd.comes("critical", lane=Lane.CRITICAL)

    order = await crowd.all_leave()

    assert order.index("critical") <= 2


async def test_of_a_tenant_the_earliest_deadline_enters_first() -> None:
    crowd = Crowd(FairGate(1))
    await crowd.comes("inside")
    await crowd.comes("patient")
    await crowd.comes("soon", deadline=Deadline(20.0))
    await crowd.comes("sooner", deadline=Deadline(10.0))

    assert await crowd.all_leave() == ["inside", "sooner", "soon", "patient"]


def _cut_off_first(crowd: Crowd) -> None:
    crowd.tasks["waits"].cancel()
    crowd._leave["inside"].set()


def _cut_off_when_called(crowd: Crowd) -> None:
    crowd._leave["inside"].set()
    asyncio.get_running_loop().call_soon(crowd.tasks["waits"].cancel)


@pytest.mark.parametrize("cut_off", [_cut_off_first, _cut_off_when_called])
async def test_who_is_cut_off_takes_no_place_along(cut_off: Callable[[Crowd], None]) -> None:
    crowd = Crowd(FairGate(1))
    for name in ("inside", "waits", "next"):
        await crowd.comes(name)

    cut_off(crowd)
    await turns()

    assert crowd.entered[-1] == "next"
    assert "waits" in crowd.entered or crowd.tasks["waits"].cancelled()
    _ = await crowd.all_leave()
    assert not crowd.gate.full
