import asyncio
from itertools import pairwise

import orjson
import pytest

from cortex_stream.clock import ManualClock, SystemClock
from cortex_stream.errors import BrokerUnavailable
from cortex_stream.loadtest.ledger import Ledger
from cortex_stream.loadtest.load import (
    classify_requests,
    drive,
    embed_requests,
    fill,
    request_value,
)
from cortex_stream.record import OutgoingRecord
from schemas.priority import Lane
from schemas.requests import ClassifyRequest, EmbedRequest


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
    def keys(self) -> list[bytes | None]:
        return [record.key for call in self.calls for record in call]


class NeverAcknowledges(Recorder):
    async def send(self, *records: OutgoingRecord) -> None:
        await super().send(*records)
        await self.stuck.wait()


def test_requests_are_what_the_contract_says() -> None:
    (embed,) = embed_requests(["hello"], run="r", seed=1)
    (classify,) = classify_requests(["hello"], labels=["a", "b"], run="r", seed=1)

    assert EmbedRequest.model_validate_json(embed.value).data.texts == ["hello"]
    assert ClassifyRequest.model_validate_json(classify.value).data.labels == ["a", "b"]
    assert {embed.request_id, classify.request_id} == {"r-0", "r-c0"}


def test_attributes_that_are_none_are_left_out() -> None:
    value = request_value(
        request_id="1", request_type="t", data={}, attributes={"subject": None, "source": "s"}
    )

    assert orjson.loads(value) == {
        "specversion": "1.0",
        "id": "1",
        "type": "t",
        "source": "s",
        "data": {},
    }


def test_equal_seeds_give_equal_requests_in_the_asked_mix() -> None:
    texts = [f"text {index}" for index in range(2000)]
    mix = {Lane.CRITICAL: 0.25, Lane.LOW: 0.75}

    requests = embed_requests(texts, run="r", seed=5, mix=mix)

    assert requests == embed_requests(texts, run="r", seed=5, mix=mix)
    assert requests != embed_requests(texts, run="r", seed=6, mix=mix)
    critical = sum(request.lane is Lane.CRITICAL for request in requests)
    assert 400 < critical < 600
    assert {request.record.topic for request in requests} == {
        "cortex.requests.critical",
        "cortex.requests.low",
    }


async def test_filling_sends_everything_in_order_and_notes_it_first() -> None:
    requests = embed_requests(["x"] * 1200, run="r", seed=1)
    recorder, ledger = Recorder(), Ledger()

    await fill(recorder, requests, ledger=ledger, clock=ManualClock())

    assert recorder.keys == [request.request_id.encode() for request in requests]
    assert ledger.sent_count == 1200


async def test_the_open_loop_does_not_wait_for_anybody() -> None:
    requests = embed_requests(["x"] * 50, run="r", seed=1)
    recorder, ledger = NeverAcknowledges(), Ledger()

    driving = asyncio.ensure_future(
        drive(recorder, requests, rate_per_s=5000, seed=1, ledger=ledger, clock=SystemClock())
    )
    async with asyncio.timeout(5):
        while ledger.sent_count < 50:
            await asyncio.sleep(0.001)

    assert not driving.done()  # it still owes the confirmations, yet everything was sent
    recorder.stuck.set()
    await driving


async def test_the_open_loop_keeps_its_rate() -> None:
    count, rate_per_s, clock = 400, 1000.0, SystemClock()
    requests = embed_requests(["x"] * count, run="r", seed=1)
    began_s = clock.monotonic_s()

    await drive(Recorder(), requests, rate_per_s=rate_per_s, seed=2, ledger=Ledger(), clock=clock)

    # The mean of 400 exponential gaps lies within 5 standard errors (25 %) of 1 / rate; the upper
    # bound leaves room for a busy machine.
    took_s = clock.monotonic_s() - began_s
    assert 0.75 * count / rate_per_s < took_s < 3 * count / rate_per_s


async def test_order_of_sending_is_order_of_requests() -> None:
    requests = embed_requests(["x"] * 300, run="r", seed=1)
    recorder = Recorder()

    await drive(recorder, requests, rate_per_s=20_000, seed=2, ledger=Ledger(), clock=SystemClock())

    indices = [int((key or b"").rpartition(b"-")[2]) for key in recorder.keys]
    assert all(one < other for one, other in pairwise(indices))
    assert len(indices) == 300


async def test_a_broker_that_goes_away_ends_the_load_with_its_own_error() -> None:
    requests = embed_requests(["x"] * 50, run="r", seed=1)
    recorder = Recorder(failure=BrokerUnavailable("gone"))

    with pytest.raises(BrokerUnavailable, match="gone"):
        await drive(
            recorder, requests, rate_per_s=200, seed=1, ledger=Ledger(), clock=SystemClock()
        )
