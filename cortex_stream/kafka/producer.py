"""The producer: `send` returns when every in-sync replica has the records.

Invariants:
    A record that was sent is in its topic at least once; after an error it may or may not be.
    Records of one call are enqueued in their order.
    A client whose place in the broker's sequence is lost is never used again.

Owner: the event loop that started it; any task of it may send.
"""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    KafkaError,
    KafkaTimeoutError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownProducerId,
    UnknownTopicOrPartitionError,
)

from cortex_stream.errors import BrokerUnavailable, InvariantError, OutcomeTooLarge, ProducerFatal
from cortex_stream.kafka.connection import connection_arguments, reaching_brokers
from cortex_stream.record import OutgoingRecord
from cortex_stream.settings.tree import Settings
from topics.catalogue import LARGE_BYTES

# The broker compares the compressed batch with max.message.bytes; bytes that do not compress grow
# by the zstd frame: 3 bytes per block of 128 KiB, 8 MiB / 128 KiB x 3 B = 192 B, and a header.
MAX_RECORD_BYTES: Final = LARGE_BYTES - (4 << 10)
DELIVERY_TIMEOUT_S: Final = 120.0  # as Kafka's own clients; outlives a broker's restart
_STOP_TIMEOUT_S: Final = 5.0
_CANCEL_AGAIN_S: Final = 0.1
_SEQUENCE_LOST: Final = (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
    UnknownProducerId,
)
_NOT_ENQUEUED: Final = (
    KafkaTimeoutError,  # the buffer of the partition stays full
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
# Of one topic or partition that takes nothing for now. The client does not replace the sequence
# numbers that were used up; once something is taken again the broker notices the gap, and the
# client is replaced then: no reason to disturb the other topics, for seconds, again and again.
_OF_ONE_PLACE: Final = (
    LeaderNotAvailableError,
    NotLeaderForPartitionError,  # only after a batch waited for a leader for 30 s
    TopicAuthorizationFailedError,
)


def producer_arguments(settings: Settings) -> dict[str, Any]:
    """Return the keyword arguments of an aiokafka producer as durable as we need."""
    return {
        **connection_arguments(settings),
        "acks": "all",
        "enable_idempotence": True,
        # 6 µs an outcome, 0.59 of its bytes. aiokafka fixes lz4 at level 9: 25 µs and 0.79.
        "compression_type": "zstd",
        # No answer waits for company: what comes while a request is under way goes in the next.
        "linger_ms": 0,
        "max_batch_size": 256 << 10,
        "max_request_size": MAX_RECORD_BYTES,
        "request_timeout_ms": 30_000,
    }


class KafkaProducer:
    """Produces records durably. Start and stop it, or use it as an async context manager."""

    def __init__(
        self, settings: Settings, *, delivery_timeout_s: float = DELIVERY_TIMEOUT_S
    ) -> None:
        self._settings = settings
        self._delivery_timeout_s = delivery_timeout_s
        self._client: AIOKafkaProducer | None = None
        self._running = False
        self._changing = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Connect, as `start` does."""
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Deliver what is pending and disconnect, as `stop` does."""
        await self.stop()

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerUnavailable: no broker answers.
        """
        self._running = True
        await self._connected()

    async def stop(self) -> None:
        """Deliver what is pending, within 5 seconds, and disconnect. Idempotent."""
        self._running = False
        if self._client is not None:
            await self._discard(self._client)
        if self._stopping:
            await asyncio.wait(self._stopping)

    async def send(self, *records: OutgoingRecord) -> None:
        """Produce `records` in order; return once all of them are durable.

        A client that lost its place in the broker's sequence is replaced and the records are sent
        again, so that a record may be there twice.

        Raises:
            OutcomeTooLarge: a record does not fit; records after it were not sent.
            BrokerUnavailable: not confirmed in time, or refused; the records may still be there.
            ProducerFatal: the replacement lost its place as well.
        """
        lost = False
        while True:
            client = self._client or await self._connected()
            try:
                await self._deliver(client, records)
            except _SEQUENCE_LOST as error:
                if isinstance(error, ProducerClosed) and self._client is not client:
                    continue  # another task discarded it: no loss of the replacement's
                await self._discard(client)
                if lost:
                    raise ProducerFatal(f"producing, with a second producer: {error}") from error
                lost = True
            except KafkaError as error:
                # The refused batch has used up its sequence numbers, the broker did not count it:
                # whatever the client sends next to that partition would be out of order.
                if not isinstance(error, _OF_ONE_PLACE):
                    await self._discard(client)
                if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
                    raise OutcomeTooLarge(f"producing a record: {error}") from error
                topics = ", ".join(sorted({record.topic for record in records}))
                raise BrokerUnavailable(f"producing to {topics}: {error}") from error
            else:
                return

    async def post(self, *records: OutgoingRecord) -> asyncio.Future[Any]:
        """Enqueue `records`, at least one, in order; what is returned ends once all are durable.

        For who waits for many at once: without a time limit and without a second try. Returns at
        once, unless more is enqueued for a partition than fits. What is returned may raise any
        error of the client; `send` knows what to do then.

        Raises:
            OutcomeTooLarge, BrokerUnavailable: not all were enqueued.
        """
        client = self._client or await self._connected()
        posted: list[asyncio.Future[Any]] = []
        try:
            for record in records:
                posted.append(await self._enqueue(client, record))  # noqa: PERF401 (order)
        except BaseException as error:
            for future in posted:
                future.cancel()
            if isinstance(error, KafkaError):
                raise BrokerUnavailable(f"producing: {error}") from error
            raise
        return posted[0] if len(posted) == 1 else asyncio.gather(*posted)

    async def _deliver(self, client: AIOKafkaProducer, records: Sequence[OutgoingRecord]) -> None:
        pending: list[asyncio.Future[Any]] = []
        try:
            async with asyncio.timeout(self._delivery_timeout_s):
                for record in records:
                    pending.append(await self._enqueue(client, record))  # noqa: PERF401 (order)
                for future in pending:
                    await future
        except TimeoutError as error:
            raise BrokerUnavailable(
                f"producing {len(records)} records: Kafka at {self._settings.kafka_brokers} did not"
                f" confirm within {self._delivery_timeout_s:g} s"
            ) from error
        finally:
            for future in pending:
                if not future.cancel() and not future.cancelled():
                    future.exception()  # seen: the first one was raised already

    async def _enqueue(
        self, client: AIOKafkaProducer, record: OutgoingRecord
    ) -> asyncio.Future[Any]:
        try:
            future: asyncio.Future[Any] = await client.send(
                self._settings.topic(record.topic),
                value=record.value,
                key=record.key,
                headers=list(record.headers),
            )
        except MessageSizeTooLargeError as error:  # our own limit: nothing was enqueued
            raise OutcomeTooLarge(
                f"producing {len(record.value or b'')} bytes to {record.topic}: with key and headers a"
                f" record may weigh {MAX_RECORD_BYTES} bytes"
            ) from error
        except _NOT_ENQUEUED as error:
            raise BrokerUnavailable(f"producing to {record.topic}: {error}") from error
        return future

    async def _connected(self) -> AIOKafkaProducer:
        if not self._running:
            raise InvariantError("producing before start or after stop; this is a bug")
        async with self._changing:
            if self._client is None:
                client = AIOKafkaProducer(**producer_arguments(self._settings))
                try:
                    with reaching_brokers(self._settings):
                        await client.start()
                except BaseException:
                    await client.stop()
                    raise
                self._client = client
            return self._client

    async def _discard(self, client: AIOKafkaProducer) -> None:
        async with self._changing:
            if self._client is not client:
                return  # another task was faster
            self._client = None
            stopping = asyncio.ensure_future(_stop(client))  # bounded, and `stop` waits for it
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)
            await asyncio.shield(stopping)  # who is cancelled leaves no client behind


async def _stop(client: AIOKafkaProducer) -> None:
    """Stop within bounds: by itself an idempotent client waits for a dead broker for ever."""
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await client.stop()
    except TimeoutError:
        await client.client.close()
        sender = client._sender.sender_task  # noqa: SLF001 (aiokafka is pinned; no public way)
        while not sender.done():  # cancelled once, it still waits for each request under way
            sender.cancel()
            await asyncio.wait([sender], timeout=_CANCEL_AGAIN_S)
        # What it has not sent would stay unconfirmed until its sender's time limit.
        client._message_accumulator.fail_all(ProducerClosed())  # noqa: SLF001 (as above)
