"""What admission counts a request for, against what it really holds."""

import asyncio
import gc
import json
import tracemalloc
from collections.abc import Iterator

import orjson
import pytest
from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from agents.answering import Core, Engine
from agents.intake import Batch, Intake
from agents.polled import memory_bytes, weigh
from agents.suspects import Counts
from agents.track import Partition, Tracks
from cortex_stream.clock import SystemClock
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.record import OutgoingRecord, RecordSource
from cortex_stream.routing.hosting import Feed
from cortex_stream.scheduling.admission import Admission, Bound, weight_bytes
from cortex_stream.testing.stub_runner import StubRunner, stub_model
from schemas.priority import Lane
from schemas.requests import CLASSIFY, EMBED
from tests.unit.engine.desk import open_engine

PLENTY = 10**12
MOST_TEXTS = 256 + 64
TOPIC = "cortex.requests.low"


def record(value: bytes | None, *, offset: int = 0) -> ConsumerRecord[bytes, bytes]:
    size = len(value or b"")
    return ConsumerRecord(TOPIC, 0, offset, 1_700_000_000_000, 0, None, value, None, 0, size, ())


def texts_of(value: bytes | None) -> int:
    """Return how many texts `weigh` sees."""
    weight = weigh(record(value), most_texts=MOST_TEXTS)
    bare = weight_bytes(record_bytes=memory_bytes(record(value)), texts=0)
    return (weight - bare) // (
        weight_bytes(record_bytes=0, texts=1) - weight_bytes(record_bytes=0, texts=0)
    )


def test_the_texts_of_a_request_are_counted_without_its_other_strings() -> None:
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "//a",
        "type": EMBED,
        "data": {"model": "minilm", "texts": ["a", "b", "c"]},
        "time": "2026-01-01T00:00:00Z",
    }

    assert texts_of(orjson.dumps(event)) == 3
    assert texts_of(json.dumps(event, indent=2).encode()) == 3


def test_labels_count_as_texts() -> None:
    event = {"id": "1", "type": CLASSIFY, "data": {"texts": ["a"], "labels": ["b", "c"]}}

    assert texts_of(orjson.dumps(event)) == 4  # the key of the second is one
    assert texts_of(orjson.dumps(event, option=orjson.OPT_SORT_KEYS)) == 4


@pytest.mark.parametrize("value", [None, b"", b"nonsense", b"]", b'"texts"', b'{"texts":[]}'])
def test_a_record_without_texts_counts_as_one_text(value: bytes | None) -> None:
    assert texts_of(value) == 1


def test_no_record_counts_for_more_texts_than_a_request_may_have() -> None:
    assert texts_of(b'["' + b'",' * 5000 + b'"]') == MOST_TEXTS


@given(
    texts=st.lists(st.text(), min_size=1, max_size=MOST_TEXTS // 2),
    labels=st.lists(st.text(), max_size=MOST_TEXTS // 2),
    order=st.sampled_from(["as written", "sorted"]),
    separators=st.sampled_from([(",", ":"), (", ", ": ")]),
    before=st.dictionaries(st.sampled_from(["id", "source", "texts"]), st.text()),
)
def test_texts_are_never_counted_too_few(
    texts: list[str],
    labels: list[str],
    order: str,
    separators: tuple[str, str],
    before: dict[str, str],
) -> None:
    event = {**before, "data": {"texts": texts, "labels": labels}, "subject": "x"}

    value = json.dumps(event, separators=separators, sort_keys=order == "sorted")

    assert texts_of(value.encode()) >= len(texts) + len(labels)


# ---- measured ------------------------------------------------------------------------------------


class HoldingProducer:
    """Takes outcomes and never says that they are durable, as with a broker that is away."""

    def __init__(self) -> None:
        self.held: list[tuple[OutgoingRecord, ...]] = []

    async def send(self, *records: OutgoingRecord) -> None:
        self.held.append(records)
        await asyncio.Event().wait()

    async def post(self, *records: OutgoingRecord) -> asyncio.Future[None]:
        return asyncio.ensure_future(self.send(*records))


async def no_counts() -> Counts:
    return {}


class OneEngine(Core):
    busy = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def engine(self) -> Engine:
        return self._engine

    def settled(self, _outcome: Outcome, _source: RecordSource) -> None:
        raise AssertionError("nothing becomes durable")


def requests(count: int, *, texts: int, chars: int) -> Iterator[bytes]:
    words = "the memory of a request that waits for its turn in the lane is measured here "
    for number in range(count):
        event = {
            "id": f"request-{number}",
            "type": EMBED,
            "data": {
                "texts": [f"{number} {n} {words * (chars // len(words))}" for n in range(texts)]
            },
        }
        yield json.dumps(event).encode()


@pytest.mark.parametrize(
    ("count", "texts", "chars"),
    [
        (300, 1, 78),
        (300, 1, 234),
        (40, 16, 78),
        (6, 256, 0),
        (6, 256, 78),
        (6, 256, 234),
        (30, 1, 30_000),
    ],
)
async def test_a_request_holds_no_more_than_it_counts_for_until_its_outcome_is_durable(
    monkeypatch: pytest.MonkeyPatch, count: int, texts: int, chars: int
) -> None:
    monkeypatch.setattr("agents.outbox._UNCONFIRMED_SETS", count)
    admission = Admission({TOPIC: Bound(PLENTY, PLENTY)}, total_bytes=PLENTY)
    runner, producer = StubRunner(width=384), HoldingProducer()
    async with open_engine(stub_model(dims=384, runners=(runner,)), clock=SystemClock()) as engine:
        intake = Intake(
            OneEngine(engine),
            producer,
            Tracks(admission),
            drain_timeout_s=0.01,
            read_counts=no_counts,
        )
        await intake.start()
        tracemalloc.start()
        gc.collect()
        before_bytes, _ = tracemalloc.get_traced_memory()

        polled = [
            record(value, offset=n)
            for n, value in enumerate(requests(count, texts=texts, chars=chars))
        ]
        weights = [(each.offset, weigh(each, most_texts=MOST_TEXTS)) for each in polled]
        track = intake.tracks.deliver(Partition(TOPIC, 0), weights)
        await intake.take_requests(Batch(track, polled, 0.0), Feed(TOPIC, Lane.LOW, None))
        async with asyncio.timeout(60):
            while sum(map(len, producer.held)) < count:
                await asyncio.sleep(0.01)
        gc.collect()
        held_bytes = tracemalloc.get_traced_memory()[0] - before_bytes
        tracemalloc.stop()
        await intake.drain()

    counted_bytes = admission.held_bytes()
    print(f"{texts} x {chars}: {held_bytes / count:.0f} held, {counted_bytes / count:.0f} counted")
    assert held_bytes <= counted_bytes
    assert counted_bytes <= 3 * held_bytes
