"""Fetches that name what has changed, and not each time all partitions of a worker.

A worker reads 52 partitions, in production 156, of which a fetch brings records of one or two.
aiokafka names all of them in every fetch, and reads an empty answer about each of the others, which
takes a quarter of a millisecond and more. Kafka's fetch sessions keep the list at the broker: a fetch says what differs from the one before, and its answer leaves out what has nothing new.

Leans on private names of aiokafka, which is pinned; `tests/integration/kafka` holds it.

Source: Kafka Improvement Proposal 227, "Introduce Incremental FetchRequests to Increase Partition
Scalability".
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import structlog
from aiokafka.protocol.fetch import FetchRequest, FetchRequestStruct
from aiokafka.structs import TopicPartition

from cortex_stream.clock import SystemClock

_FIRST_VERSION: Final = 7  # of the request that knows of sessions: Kafka 1.1
_NO_SESSION: Final = 0
_FIRST_EPOCH: Final = 0  # asks for a new session, and ends the one that is named
_MAX_EPOCH: Final = (1 << 31) - 1
_IS_GONE: Final = frozenset({70, 71})  # the session is unknown, or at another epoch

_Send: TypeAlias = Callable[..., Awaitable[Any]]
_Asked: TypeAlias = Mapping[TopicPartition, tuple[int, int]]  # from which offset, how many bytes

log = structlog.stdlib.get_logger(__name__)


def use_fetch_sessions(consumer: Any) -> None:
    """Let an aiokafka consumer that has not started fetch within sessions."""
    client = consumer._client  # noqa: SLF001
    client.send = FetchSessions(client.send, consumer._subscription).send  # noqa: SLF001


class FetchSessions:
    """Sends the fetches of one client: at most one at a time to each broker, as aiokafka does.

    Invariant: a session is told everything anew unless it is certain what the broker keeps of it and
    that its first answer was taken.

    Owner: the loop of that client.
    """

    def __init__(self, send: _Send, subscriptions: Any) -> None:
        """Send by `send`, the client's own; `subscriptions` is where its consumer keeps account."""
        self._send = send
        self._subscriptions = subscriptions
        self._sessions: defaultdict[int, _Session] = defaultdict(_Session)

    async def send(self, node_id: int, request: Any, **options: Any) -> Any:
        """Send a request of any kind and return its answer; a fetch as part of a session.

        An answer to a fetch leaves out partitions of `request` that have nothing new. They count as
        answered nevertheless.

        Raises:
            aiokafka.errors.KafkaError: as the client does.
        """
        if not isinstance(request, FetchRequest):
            return await self._send(node_id, request, **options)
        session = self._sessions[node_id]
        if any(state.timestamp is None for _, state in self._states(session.known)):
            # Of an assignment that came later, or whose answer was thrown away: it will ask for
            # high watermarks, which Kafka does not tell twice.
            session.known = {}
        response = await session.ask(self._send, node_id, request, options)
        if response.API_VERSION >= _FIRST_VERSION and response.error_code in _IS_GONE:
            log.info("fetch.session_is_gone", node=node_id, error_code=response.error_code)
            response = await session.ask(self._send, node_id, request, options)
        self._note_answered(session.known, response)
        return response

    def _note_answered(self, known: _Asked, response: Any) -> None:
        if response.throttle_time_ms and not response.topics:
            return  # a quota was exceeded: the broker has thrown away what it had read
        told = {(topic, each[0]) for topic, partitions in response.topics for each in partitions}
        now_ms = SystemClock().unix_ms()
        for at, state in self._states(known):
            if at not in told and state.timestamp is not None:
                state.timestamp = now_ms

    def _states(self, partitions: _Asked) -> list[tuple[TopicPartition, Any]]:
        """Return the consumer's account of those that are assigned."""
        subscription = self._subscriptions.subscription
        assignment = subscription and subscription.assignment
        if assignment is None:
            return []
        tps = assignment.tps
        return [(at, assignment.state_value(at)) for at in partitions if at in tps]


class _Session:
    """What one broker was told to fetch.

    Attributes:
        known: what it keeps of that for sure; nothing: the next fetch tells it all, in a new session.
    """

    def __init__(self) -> None:
        self.known: _Asked = {}
        self._id = _NO_SESSION
        self._epoch = _FIRST_EPOCH

    async def ask(
        self, send: _Send, node_id: int, request: FetchRequest, options: Mapping[str, Any]
    ) -> Any:
        """Fetch what `request` names."""
        wanted = {
            TopicPartition(topic, partition): (offset, max_bytes)
            for topic, partitions in request.topics
            for partition, offset, max_bytes in partitions
        }
        known, self.known = self.known, {}  # until the answer is here nobody knows what it has read
        epoch = self._epoch if known else _FIRST_EPOCH
        within = _Within(request, self._id, epoch, known=known, wanted=wanted)
        response = await send(node_id, within, **options)
        if response.API_VERSION >= _FIRST_VERSION and not response.error_code:
            self._id = response.session_id
            if self._id != _NO_SESSION:  # the broker may have no place for a session
                self.known = wanted
                self._epoch = 1 if epoch == _MAX_EPOCH else epoch + 1
        return response


class _Within(FetchRequest):  # type: ignore[misc]
    """A fetch as part of a session: what it leaves out was said before."""

    def __init__(
        self,
        request: FetchRequest,
        session_id: int,
        epoch: int,
        *,
        known: _Asked,
        wanted: _Asked,
    ) -> None:
        self.__dict__.update(request.__dict__)
        self._session_id = session_id
        self._epoch = epoch
        self._known = known
        self._wanted = wanted

    def build(self, request_struct_class: type[FetchRequestStruct]) -> FetchRequestStruct:
        """Return the request in the version that the broker understands."""
        if request_struct_class.API_VERSION < _FIRST_VERSION:
            return super().build(request_struct_class)
        changed: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for at, asked in self._wanted.items():
            if self._known.get(at) != asked:
                changed[at.topic].append((at.partition, *asked))
        forgotten: defaultdict[str, list[int]] = defaultdict(list)
        for at in self._known.keys() - self._wanted.keys():
            forgotten[at.topic].append(at.partition)
        self._topics = list(changed.items())
        struct = super().build(request_struct_class)
        struct.session_id, struct.session_epoch = self._session_id, self._epoch
        struct.forgotten_topics_data = list(forgotten.items())
        return struct
