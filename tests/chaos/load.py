"""An open loop of seeded records on every lane: sent at their time, whether or not any is answered."""

import asyncio
import datetime as dt
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from cortex_stream.clock import SystemClock
from tests.chaos.corpus import MALFORMED, oversized
from tests.chaos.history import Identity, Journal, Sent, invoked

EMBED = "cortex.nlp.embed.v1"
EVENTS = "cortex.events"
LANES = ("critical", "high", "medium", "low")
USUAL: Mapping[str, int] = {
    "embed": 76,
    "binary": 4,
    "duplicate": 4,
    "conflict": 2,
    "patient": 3,
    "expired": 3,
    "malformed": 3,
    "event": 5,
}
"""Parts of what is sent, by kind."""
_TICK_S = 0.05
_MOST_OWED = 500  # what an outage of the broker kept from being sent
_REQUEST_LIMIT_BYTES = 1 << 20
_SUBJECTS = 4


@dataclass(frozen=True, slots=True)
class Planned:
    """One record before it is sent."""

    kind: str
    topic: str
    value: bytes | None
    request_id: str | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    identity: Identity = "data"
    deadline_ms: int | None = None
    timestamp_ms: int | None = None


class Traffic:
    """Draws what comes next; one seed gives one sequence, but for the times in it.

    Args:
        seed: of everything that is drawn.
        mix: parts by kind.
        deadline_ms: of requests of kind `patient`.
        lane_shares: parts of the requests by lane, the most urgent first.
    """

    def __init__(
        self,
        seed: int,
        mix: Mapping[str, int] = USUAL,
        *,
        deadline_ms: int = 60_000,
        lane_shares: tuple[int, ...] = (1, 1, 1, 1),
    ) -> None:
        self.seed = seed
        self._mix = mix
        self._deadline_ms = deadline_ms
        self._lane_shares = lane_shares
        self._draw = random.Random(seed)  # noqa: S311 (a load, not a secret)
        self._asked: list[Planned] = []
        self._number = 0
        self._subject_numbers = [0] * _SUBJECTS

    def next(self, *, now_ms: int) -> Planned:
        kind = self._draw.choices(list(self._mix), list(self._mix.values()))[0]
        return self.of_kind(kind, now_ms=now_ms)

    def of_kind(self, kind: str, *, now_ms: int = 0) -> Planned:  # noqa: C901, PLR0911 (one case a kind)
        """Return a record of this kind that was never sent before, but for duplicates."""
        self._number += 1
        name = f"s{self.seed}-{self._number}"
        topic = f"cortex.requests.{self._draw.choices(LANES, self._lane_shares)[0]}"
        match kind:
            case "event":
                return self._event()
            case "malformed":
                return self._malformed(name, topic)
            case "oversized":
                size = _REQUEST_LIMIT_BYTES + self._draw.choice((0, 1, 500_000))
                within = size <= _REQUEST_LIMIT_BYTES
                return Planned(
                    "large" if within else "malformed",
                    topic,
                    oversized(name, size_bytes=size),
                    name,
                    name.encode(),
                    identity="data" if within else "bytes",
                )
            case "duplicate" if self._asked:
                again = self._draw.choice(self._asked)
                return Planned(
                    "duplicate", topic, again.value, again.request_id, again.key, again.headers
                )
            case "conflict" if self._asked:
                other = self._draw.choice(self._asked)
                return self._embed("conflict", str(other.request_id), topic)
            case "expired":
                return self._embed("expired", name, topic, now_ms=now_ms - 30_000, budget_ms=50)
            case "patient":
                return self._embed(
                    "patient", name, topic, now_ms=now_ms, budget_ms=self._deadline_ms
                )
            case "odd_time":
                # The broker refuses the first two; of the others the workers must make sense.
                odd = self._draw.choice(
                    (0, 4_102_444_800_000, now_ms - 6 * 86_400_000, now_ms + 3_500_000)
                )
                return self._embed("embed", name, topic, timestamp_ms=odd)
            case "poison_raise" | "poison_kill" | "poison_stuck":
                words = {"poison_raise": "RAISE", "poison_kill": "KILL", "poison_stuck": "STUCK"}
                return self._embed("poison", name, topic, text=f"{words[kind]}-THE-WORKER {name}")
            case "slow":
                return self._embed("slow", name, topic, text=f"SLOW-THE-WORKER {name}")
            case "binary":
                return self._binary(name, topic)
            case _:
                planned = self._embed("embed", name, topic)
                self._asked = [*self._asked[-200:], planned]
                return planned

    def _embed(
        self,
        kind: str,
        name: str,
        topic: str,
        *,
        text: str | None = None,
        now_ms: int | None = None,
        budget_ms: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Planned:
        texts = [
            text or f"text {self._number} of {kind} é {i}"
            for i in range(self._draw.choice((1, 1, 2)))
        ]
        event: dict[str, Any] = {
            "id": name,
            "type": EMBED,
            "tenant": f"tenant-{self._draw.randrange(4)}",
            "data": {"texts": texts},
        }
        deadline_ms = None
        if now_ms is not None and budget_ms is not None:
            moment = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC)
            event |= {"time": moment.isoformat(), "deadlinems": budget_ms}
            deadline_ms = now_ms + budget_ms
        value = json.dumps(event, ensure_ascii=bool(self._number % 2)).encode()
        return Planned(
            kind,
            topic,
            value,
            name,
            name.encode(),
            (("trace", b"\x00\xff"),) if self._number % 7 == 0 else (),
            deadline_ms=deadline_ms,
            timestamp_ms=timestamp_ms,
        )

    def _binary(self, name: str, topic: str) -> Planned:
        headers: tuple[tuple[str, bytes | None], ...] = (
            ("ce_id", name.encode()),
            ("ce_source", b"//chaos/binary"),
            ("ce_type", EMBED.encode()),
        )
        value = json.dumps({"texts": [f"binary text {self._number}"]}).encode()
        return Planned("binary", topic, value, name, None, headers)

    def _malformed(self, name: str, topic: str) -> Planned:
        malformed = self._draw.choice(MALFORMED)
        value = None if malformed.value is None else malformed.value.replace(b"@", name.encode())
        request_id = None if malformed.identity == "place" else name
        return Planned(
            "malformed",
            topic,
            value,
            request_id,
            name.encode(),
            malformed.headers,
            malformed.identity,
        )

    def _event(self) -> Planned:
        subject = self._draw.randrange(_SUBJECTS)
        self._subject_numbers[subject] += 1
        document = f"subject-{subject}-{self._subject_numbers[subject]}"
        event = {
            "id": f"event-{document}",
            "type": "lake.document.changed.v1",
            "subject": f"subject-{subject}",
            "data": {"collection": "chaos", "document_id": document},
        }
        return Planned(
            "event",
            EVENTS,
            json.dumps(event).encode(),
            f"event-{document}",
            f"subject-{subject}".encode(),
        )


class Load:
    """Sends `rate_per_s` records of a traffic each second, until it is left."""

    def __init__(
        self, brokers: str, prefix: str, traffic: Traffic, journal: Journal, *, rate_per_s: float
    ) -> None:
        self.traffic = traffic
        self.rate_per_s = rate_per_s
        self.sent = 0
        self._brokers = brokers
        self._prefix = prefix
        self._journal = journal
        self._pending: set[asyncio.Future[RecordMetadata]] = set()
        self._clock = SystemClock()
        self._owed = 0.0

    async def __aenter__(self) -> Self:
        # Not idempotent: what the broker took twice is on the topic twice, and is read there.
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._brokers, acks="all", linger_ms=2, max_request_size=4 << 20
        )
        await self._producer.start()
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._pending:
            await asyncio.wait(self._pending, timeout=45)
        try:
            async with asyncio.timeout(10):
                await self._producer.stop()
        except (TimeoutError, KafkaError):
            await self._producer.client.close()
            sender = self._producer._sender.sender_task  # it would connect again
            while not sender.done():
                sender.cancel()
                await asyncio.wait([sender], timeout=0.1)

    async def send_now(self, planned: Sequence[Planned]) -> None:
        """Send beside the usual traffic."""
        for each in planned:
            await self._send(each)

    async def _run(self) -> None:
        last_s = self._clock.monotonic_s()
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = self._clock.monotonic_s()
            self._owed = min(_MOST_OWED, self._owed + (now_s - last_s) * self.rate_per_s)
            last_s = now_s
            while self._owed >= 1:
                self._owed -= 1
                await self._send(self.traffic.next(now_ms=self._clock.unix_ms()))

    async def _send(self, planned: Planned) -> None:
        number = self.sent
        self.sent += 1
        sent = Sent(
            number,
            planned.kind,
            planned.topic,
            hashlib.sha256(planned.value or b"").hexdigest(),
            planned.request_id,
            planned.identity,
            planned.deadline_ms,
        )
        invoked(self._journal, sent)
        try:
            future = await self._producer.send(
                f"{self._prefix}.{planned.topic}",
                planned.value,
                key=planned.key,
                headers=list(planned.headers),
                timestamp_ms=planned.timestamp_ms,
            )
        except KafkaError:  # never enqueued
            self._journal.write(op="fail", number=number)
            return
        self._pending.add(future)
        future.add_done_callback(lambda done: self._ended(number, done))

    def _ended(self, number: int, done: "asyncio.Future[RecordMetadata]") -> None:
        self._pending.discard(done)
        if done.cancelled() or done.exception() is not None:
            self._journal.write(op="info", number=number)
        else:
            place = done.result()
            self._journal.write(
                op="ok", number=number, partition=place.partition, offset=place.offset
            )
