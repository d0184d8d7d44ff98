import asyncio
from itertools import pairwise

import pytest

from cortex_stream.clock import ManualClock, SystemClock
from cortex_stream.errors import BrokerUnavailable
from cortex_stream.loadtest.driver import Driver
from cortex_stream.loadtest.ledger import Ledger
from cortex_stream.loadtest.load import embed_requests
from cortex_stream.loadtest.traffic import Even, Kept, Poisson, Traffic
from cortex_stream.record import OutgoingRecord
from schemas.priority import Lane
from topics.names import request_topic


class Recorder:
    """Takes records like the producer, and may be slow or broken."""

    def __init__(self, *, failure: Exception | None = None) -> None:
        self.calls: list[tuple[OutgoingRecord, ...]] = []
        self.stuck = asyncio.Event()
        self._failure = failure

    async def send(self, *records: OutgoingRecord) -> None:
        self.calls.append(records)
        if self._failure is not None:
            raise self._failure

    @property
    def records(self) -> list[OutgoingRecord]:
        return [record for call in self.calls for record in call]


class NeverAcknowledges(Recorder):
    async def send(self, *records: OutgoingRecord) -> None:
        await super().send(*records)
        await self.stuck.wait()


class AnswersAtOnce(Recorder):
    """Whatever is sent is answered before the next look."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    async def send(self, *records: OutgoingRecord) -> None:
        await super().send(*records)
        for record in records:
            self._ledger.arrived(b"{}", append_ms=0, key=record.key)


async def test_filling_sends_everything_in_order_and_notes_it_first() -> None:
    load = embed_requests(["x"] * 1200, run="r", seed=1)
    recorder, ledger = Recorder(), Ledger()

    await Driver(recorder, ledger, ManualClock()).fill(load)

    assert [record.key for record in recorder.records] == [
        request.request_id.encode() for request in load
    ]
    assert ledger.sent_count == 1200


async def test_the_open_loop_does_not_wait_for_anybody() -> None:
    recorder, ledger = NeverAcknowledges(), Ledger()
    driver = Driver(recorder, ledger, SystemClock())

    driving = asyncio.ensure_future(
        driver.drive(Traffic("t", Even(1000)), run="r", seconds=0.05, seed=1)
    )
    async with asyncio.timeout(5):
        while ledger.sent_count < 49:
            await asyncio.sleep(0.001)

    assert not driving.done()  # it still owes the confirmations, yet everything was sent
    recorder.stuck.set()
    await driving


async def test_the_open_loop_sends_as_many_as_the_seed_says_however_busy_the_machine() -> None:
    ledger, again = Ledger(), Ledger()
    traffic = Traffic("t", Poisson(2000))

    for each in (ledger, again):
        await Driver(Recorder(), each, SystemClock()).drive(traffic, run="r", seconds=0.2, seed=2)

    assert ledger.asked.keys() == again.asked.keys()
    assert 300 < ledger.sent_count < 500  # 400 ± 5 standard deviations of 20
    assert ledger.lateness_ms() is not None


async def test_order_of_sending_is_order_of_requests() -> None:
    recorder = Recorder()

    await Driver(recorder, Ledger(), SystemClock()).drive(
        Traffic("t", Poisson(20_000)), run="r", seconds=0.05, seed=2
    )

    indices = [int((record.key or b"").rpartition(b"-")[2]) for record in recorder.records]
    assert len(indices) > 700  # more than one call takes
    assert all(one < other for one, other in pairwise(indices))


async def test_a_traffic_begins_and_ends_when_it_says() -> None:
    ledger, clock = Ledger(), SystemClock()
    began_ms = clock.unix_ms()

    await Driver(Recorder(), ledger, clock).drive(
        Traffic("t", Even(1000), begins_s=0.05, ends_s=0.1), run="r", seconds=5, seed=2
    )

    assert ledger.sent_count in {49, 50}
    assert min(asked.at_ms for asked in ledger.asked.values()) >= began_ms + 40


async def test_a_backlog_is_kept_by_sending_what_was_answered() -> None:
    ledger = Ledger()
    recorder = AnswersAtOnce(ledger)

    await Driver(recorder, ledger, SystemClock()).drive(
        Traffic("t", Kept(7)), run="r", seconds=0.12, seed=1
    )

    assert len(recorder.calls) >= 2
    assert {len(call) for call in recorder.calls} == {7}


async def test_a_backlog_that_nobody_answers_does_not_grow() -> None:
    ledger = Ledger()

    await Driver(Recorder(), ledger, SystemClock()).drive(
        Traffic("t", Kept(7)), run="r", seconds=0.12, seed=1
    )

    assert ledger.sent_count == ledger.waiting("t") == 7


async def test_for_a_peer_without_lanes_everything_goes_to_one_topic() -> None:
    recorder, ledger = Recorder(), Ledger()
    load = embed_requests(["x"] * 50, run="r", seed=1)

    await Driver(recorder, ledger, ManualClock(), lambda _: request_topic(Lane.LOW)).fill(load)

    assert {record.topic for record in recorder.records} == {"cortex.requests.low"}
    assert len({asked.lane for asked in ledger.asked.values()}) > 1


async def test_a_broker_that_goes_away_ends_the_load_with_its_own_error() -> None:
    driver = Driver(Recorder(failure=BrokerUnavailable("gone")), Ledger(), SystemClock())

    with pytest.raises(BrokerUnavailable, match="gone"):
        await driver.drive(Traffic("t", Poisson(200)), run="r", seconds=0.5, seed=1)
