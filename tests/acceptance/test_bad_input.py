"""Whatever comes in: a `rejected` outcome with a stable code, a dead letter with the original bytes."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from unittest.mock import patch

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.producer import message_accumulator
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from cortex_stream.clock import SystemClock
from schemas import dead_letters
from tests.acceptance.system import System

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

EMBED = b'"type":"cortex.nlp.embed.v1"'
CLASSIFY = b'"type":"cortex.nlp.classify.v1"'


@dataclass(frozen=True)
class Bad:
    """One bad record: what it is, what must be said of it, and under which request id."""

    name: str
    value: bytes | None
    code: str
    request_id: str | None = None
    wrong_field: str | None = None
    topic: str = "cortex.requests.medium"
    headers: Sequence[tuple[str, bytes]] = ()


def request(name: str, data: bytes, *, kind: bytes = EMBED, more: bytes = b"") -> bytes:
    return b'{"id":"%s",%s,"data":%s%s}' % (name.encode(), kind, data, more)


def texts(name: str, *values: str) -> bytes:
    return request(name, orjson.dumps({"texts": list(values)}))


BAD = [
    Bad("not JSON", b"hello, embed this please", "invalid_json"),
    Bad("binary junk", bytes(range(256)) * 8, "invalid_json"),
    Bad("empty value", b"", "empty_record"),
    Bad("null value", None, "empty_record"),
    Bad("a list", b"[1,2]", "invalid_json"),
    Bad("NaN", request("nan", b'{"texts":[NaN]}'), "invalid_json", "nan"),
    Bad("lone surrogate", request("ls", b'{"texts":["\\ud800"]}'), "invalid_json", "ls"),
    Bad("invalid UTF-8", request("u8", b'{"texts":["\xff\xfe"]}'), "invalid_json", "u8"),
    Bad("too deep", request("deep", b"[" * 40 + b"]" * 40), "too_deep", "deep"),
    Bad("far too deep", request("deeper", b"[" * 50_000 + b"]" * 50_000), "too_deep", "deeper"),
    Bad(
        "duplicate type",
        request("dup", b'{"texts":["a"]}', more=b',"type":"other"'),
        "duplicate_key",
        "dup",
        "type",
    ),
    Bad("duplicate id", b'{"id":"a","id":"b",%s,"data":{}}' % EMBED, "duplicate_key", None, "id"),
    Bad("no id", b'{%s,"data":{"texts":["a"]}}' % EMBED, "invalid_envelope", None, "id"),
    Bad("id is a number", b'{"id":7,%s,"data":{}}' % EMBED, "invalid_envelope", None, "id"),
    Bad("no data", b'{"id":"nodata",%s}' % EMBED, "invalid_envelope", "nodata", "data"),
    Bad(
        "wrong CloudEvent",
        request("spec", b'{"texts":["a"]}', more=b',"specversion":"0.3"'),
        "invalid_envelope",
        "spec",
        "specversion",
    ),
    Bad(
        "2^64",
        request("big", b'{"texts":["a"]}', more=b',"deadlinems":18446744073709551616'),
        "invalid_envelope",
        "big",
        "deadlinems",
    ),
    Bad(
        "unknown type",
        b'{"id":"ut","type":"cortex.nlp.sing.v1","data":{}}',
        "unknown_type",
        "ut",
        "type",
    ),
    Bad(
        "unknown event",
        b'{"id":"ue","type":"lake.document.eaten.v1","data":{}}',
        "unknown_event",
        "ue",
        "type",
        topic="cortex.events",
    ),
    Bad("wrong field", request("wf", b'{"texts":"a"}'), "invalid_field", "wf", "data.texts"),
    Bad("wrong item", request("wi", b'{"texts":["a",3]}'), "invalid_field", "wi", "data.texts[1]"),
    Bad(
        "misspelt field",
        request("ms", b'{"texts":["a"],"modle":"x"}'),
        "invalid_field",
        "ms",
        "data.modle",
    ),
    Bad("no texts", request("et", b'{"texts":[]}'), "invalid_field", "et", "data.texts"),
    Bad("empty text", texts("e0", "a", ""), "invalid_field", "e0", "data.texts[1]"),
    Bad(
        "no labels",
        request("el", b'{"texts":["a"],"labels":[]}', kind=CLASSIFY),
        "invalid_field",
        "el",
        "data.labels",
    ),
    Bad("NUL", texts("nul", "a\x00b"), "invalid_field", "nul", "data.texts[0]"),
    Bad("10,000 texts", texts("10k", *["a"] * 10_000), "limit_exceeded", "10k", "data.texts"),
    Bad("long text", texts("long", "é" * 16_385), "limit_exceeded", "long", "data.texts[0]"),
    Bad("too large", texts("huge", *["x" * 30_000] * 40), "record_too_large", "huge"),
    Bad(
        "as large as the topic allows",
        texts("most", "".join(secrets.token_hex(500) for _ in range(8_300))),
        "record_too_large",
        "most",
    ),
    Bad(
        "unknown model",
        request("um", b'{"texts":["a"],"model":"gpt-9"}'),
        "unknown_model",
        "um",
        "data.model",
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
async def test_bad_input_is_rejected_by_name_and_kept(running: System, bad: Bad) -> None:
    # when
    key = f"key of {bad.name}".encode()
    place = await (
        await running.send_raw(
            bad.topic, bad.value, key=key, headers=[*bad.headers, ("mine", b"stays")]
        )
    )
    letter = None
    while letter is None:
        await running.read_to_the_end()
        letter = next((r for r in running.records["cortex.dead-letters"] if r.key == key), None)

    # then: the caller can read why
    headers = dict(letter.headers)
    wanted = bad.request_id or ""
    await running.answered([wanted], timeout_s=20)
    outcome = next(
        found
        for found in running.outcomes[wanted]
        if found["data"]["error"]["message"].encode() == headers[dead_letters.MESSAGE]
    )
    assert outcome["type"] == "cortex.outcome.rejected.v1"
    error = outcome["data"]["error"]
    assert error["code"] == bad.code
    assert error["field"] == bad.wrong_field
    assert error["retryable"] is False
    assert bad.wrong_field is None or bad.wrong_field in error["message"]

    # and the evidence is complete
    assert (letter.value or b"") == (bad.value or b"")
    assert headers["mine"] == b"stays"
    assert headers[dead_letters.CODE] == bad.code.encode()
    assert headers[dead_letters.ORIGINAL_TOPIC] == running.topic(bad.topic).encode()
    assert headers[dead_letters.ORIGINAL_PARTITION] == str(place.partition).encode()
    assert headers[dead_letters.ORIGINAL_OFFSET] == str(place.offset).encode()
    assert headers.keys() >= set(dead_letters.HEADERS)


async def test_a_record_without_key_and_value_is_rejected(running: System) -> None:
    # when: the client itself refuses to send neither, so a header-only record goes by a batch
    batch = running.producer.create_batch()
    _ = batch.append(key=None, value=None, timestamp=None, headers=[("mine", b"stays")])
    batch.close()
    sent = await running.producer.send_batch(
        batch, running.topic("cortex.requests.low"), partition=2
    )
    place = await sent

    # then
    letter = None
    while letter is None:
        await running.read_to_the_end()
        letter = next(
            (
                headers
                for record in running.records["cortex.dead-letters"]
                if (headers := dict(record.headers))[dead_letters.ORIGINAL_TOPIC]
                == running.topic("cortex.requests.low").encode()
                and headers[dead_letters.ORIGINAL_OFFSET] == str(place.offset).encode()
            ),
            None,
        )
    assert letter[dead_letters.CODE] == b"empty_record"
    assert letter["mine"] == b"stays"


class NotUtf8(str):
    """A header name as a client in another language may send it."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


async def test_a_record_that_no_client_can_decode_is_rejected_and_stops_nobody(
    running: System,
) -> None:
    # given: the pure-Python batch builder takes the name's bytes as they are
    producer = AIOKafkaProducer(
        bootstrap_servers=running.environment["KAFKA_BROKERS"], compression_type="lz4"
    )
    await producer.start()
    with patch.object(
        message_accumulator, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy
    ):
        batch = producer.create_batch()
        for name, header in (("before", "h"), ("-", NotUtf8("h")), ("behind", "h")):
            _ = batch.append(
                key=None,
                value=texts(name, name),
                timestamp=SystemClock().unix_ms(),
                headers=[(header, b"v")],
            )
        batch.close()
        sent = await producer.send_batch(batch, running.topic("cortex.requests.high"), partition=1)
        place = await sent
    await producer.stop()

    # when
    await running.answered(["before", "behind"], timeout_s=20)
    letters: list[dict[str, bytes]] = []
    while not letters:
        await running.read_to_the_end()
        letters = [
            headers
            for record in running.records["cortex.dead-letters"]
            if (headers := dict(record.headers))[dead_letters.CODE] == b"unreadable_record"
        ]

    # then
    assert [int(letter[dead_letters.ORIGINAL_OFFSET]) for letter in letters] == [place.offset + 1]
    codes = [found["data"]["error"]["code"] for found in running.outcomes[""]]
    assert "unreadable_record" in codes


@pytest.mark.alone
async def test_a_run_of_100_poison_records_delays_its_siblings_by_at_most_200_ms(
    running: System,
) -> None:
    # given: the usual delay behind nothing, on a warm worker
    async def delay_s(name: str, poison: int) -> float:
        began = time.perf_counter()
        for index in range(poison):
            _ = await running.send_raw("cortex.requests.medium", b"poison %d" % index, partition=0)
        _ = await running.send_raw("cortex.requests.medium", texts(name, "a good one"), partition=0)
        await running.producer.flush()
        await running.outcome(name)
        return time.perf_counter() - began

    quiet_s = sorted([await delay_s(f"quiet-{n}", 0) for n in range(5)])[2]

    # when
    behind_s = sorted([await delay_s(f"behind-{n}", 100) for n in range(5)])[2]

    # then
    assert behind_s - quiet_s <= 0.2, f"{behind_s:.3f} s behind 100 poison, {quiet_s:.3f} s quiet"


async def test_the_worker_has_survived_all_of_it(running: System) -> None:
    # given
    [worker] = running.workers

    # when
    await running.embed(["after-all-that"], "text")
    await running.answered(["after-all-that"], timeout_s=20)
    lag: list[int] = [1]

    async def lagging() -> bool:
        status = orjson.loads(worker.get("/status.json")[1])
        lag[:] = [p["lag"] or 0 for p in status["partitions"]]
        return any(lag)

    deadline = time.monotonic() + 10
    while await lagging():
        assert time.monotonic() < deadline, f"something was never acknowledged: {lag}"

    # then
    assert worker.returncode is None
