"""Topics of a cluster: look at them, change them as planned, verify them before a worker starts.

Owner: the event loop that entered the `TopicAdmin`.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    InvalidConfigurationError,
    InvalidReplicationFactorError,
    NoError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from cortex_stream.clock import SystemClock
from cortex_stream.errors import TopicsMismatch
from cortex_stream.kafka.connection import connected, connection_arguments, reaching_brokers
from cortex_stream.kafka.plan import (
    AddPartitions,
    AlterConfig,
    Change,
    CreateTopic,
    Plan,
    PresentTopic,
    WantedTopic,
    decide_plan,
    wanted_topics,
)
from cortex_stream.settings.tree import Settings
from topics.catalogue import needed_topics

log = structlog.get_logger(__name__)

_TIMEOUT_MS: Final = 10_000
_REGISTERED_TIMEOUT_S: Final = 10.0
_SHOWN_TIMEOUT_S: Final = 60.0  # a busy cluster with a hundred partitions to make
_LOOK_AGAIN_S: Final = 0.05
_SET_ON_THE_TOPIC: Final = 1  # ConfigSource.DYNAMIC_TOPIC_CONFIG of Kafka's protocol


class TopicAdmin:
    """An administration client; use it as an async context manager.

    Raises:
        BrokerUnavailable: on entering, no broker answers.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Connect; wait a while for a broker that has just started, or was silent, to be registered.

        A client looks for brokers once, when it starts.
        """
        clock = SystemClock()
        give_up_s = clock.monotonic_s() + _REGISTERED_TIMEOUT_S
        while True:
            async with AsyncExitStack() as opening:
                client = AIOKafkaAdminClient(
                    **connection_arguments(self._settings), request_timeout_ms=_TIMEOUT_MS
                )
                self._client = await opening.enter_async_context(connected(self._settings, client))
                registered = client._client.cluster.brokers()  # noqa: SLF001
                if registered or clock.monotonic_s() >= give_up_s:
                    self._opened = opening.pop_all()
                    return self
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect."""
        await self._opened.aclose()

    async def plan(self, *, reset: bool = False) -> Plan:
        """Return what separates the cluster from the topics that this release uses.

        With `reset` it takes back what operators chose for a topic (`decide_plan`).

        Raises:
            BrokerUnavailable: a broker stopped answering, or refused.
        """
        kafka = self._settings.kafka
        needed = needed_topics(split=self._settings.worker.split)
        wanted = wanted_topics(needed, profile=kafka.profile, prefix=kafka.topic_prefix)
        present = await self.describe(topic.name for topic in wanted)
        return decide_plan(wanted, present, reset=reset)

    async def describe(self, names: Iterable[str]) -> dict[str, PresentTopic]:
        """Return those of the topics `names` (on the cluster) that exist, by name.

        Raises:
            BrokerUnavailable: a broker stopped answering, or refused.
        """
        wanted = frozenset(names)
        with reaching_brokers(self._settings):
            # Asked for all and filtered here: asking by name would create the missing ones on a
            # cluster with auto-creation.
            metadata = await self._client.describe_topics(None)
            found = {topic["topic"]: topic for topic in metadata if topic["topic"] in wanted}
            configs = await self._configs(found) if found else {}
        return {
            name: PresentTopic(
                name=name,
                partitions=len(topic["partitions"]),
                replication=min(len(part["replicas"]) for part in topic["partitions"]),
                config={key: value for key, value, _ in configs[name]},
                overrides={key: value for key, value, own in configs[name] if own},
            )
            for name, topic in found.items()
            if name in configs
        }

    async def apply(self, changes: Sequence[Change]) -> None:
        """Make the changes of a plan one by one and wait until the cluster shows them.

        A topic that somebody else created meanwhile is fine.

        Settings are read and written back as a whole, since the protocol of the client cannot set
        a single one: a setting that somebody else makes on the same topic in between is lost.

        Raises:
            BrokerUnavailable: a broker stopped answering, or refused; earlier changes are made.
        """
        with reaching_brokers(self._settings):
            await self._make(changes)
            async with asyncio.timeout(_SHOWN_TIMEOUT_S):
                await self._until_shown(changes)

    async def _until_shown(self, changes: Sequence[Change]) -> None:
        """Wait: a broker learns of a topic some milliseconds after the controller."""
        while True:
            pending = (*(await self.plan()).changes, *(await self.plan(reset=True)).changes)
            if not any(change in pending for change in changes):
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _make(self, changes: Sequence[Change]) -> None:
        for change in changes:
            match change:
                case CreateTopic(topic=topic):
                    _check(change, await self._create(topic))
                case AlterConfig(name=name, changes=settings):
                    present = (await self.describe([name]))[name]
                    made = {key: new for key, (_, new) in settings.items()}
                    resource = ConfigResource(
                        ConfigResourceType.TOPIC, name, {**present.overrides, **made}
                    )
                    (response,) = await self._client.alter_configs([resource])
                    _check(change, response.resources[0][:2])
                case AddPartitions(name=name, wanted=wanted):
                    await self._client.create_partitions({name: NewPartitions(wanted)})

    async def _create(self, topic: WantedTopic) -> tuple[int, str | None]:
        """Create a topic, without the settings that only newer brokers know where it has to be.

        Returns code and text of the broker's answer.
        """
        needed = {key: value for key, value in topic.config.items() if key not in topic.dispensable}
        answer = await self._create_with(topic, topic.config)
        if for_code(answer[0]) is not InvalidConfigurationError or needed == topic.config:
            return answer
        return await self._create_with(topic, needed)

    async def _create_with(
        self, topic: WantedTopic, config: Mapping[str, str]
    ) -> tuple[int, str | None]:
        """Create a topic; wait a while for brokers that the controller has fenced off.

        It does so with a broker that was silent, and tells of it like of one that does not exist.
        """
        clock = SystemClock()
        give_up_s = clock.monotonic_s() + _REGISTERED_TIMEOUT_S
        new = NewTopic(topic.name, topic.partitions, topic.replication, topic_configs=dict(config))
        while True:
            response = await self._client.create_topics([new])
            code, text = response.topic_errors[0][1:]
            too_few = for_code(code) is InvalidReplicationFactorError
            if not too_few or clock.monotonic_s() >= give_up_s:
                return code, text
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _configs(self, names: Iterable[str]) -> dict[str, list[tuple[str, str, bool]]]:
        """Return (name, value, set on the topic itself) of every setting, by existing topic."""
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        configs: dict[str, list[tuple[str, str, bool]]] = {}
        for response in await self._client.describe_configs(resources):
            for code, text, _, name, entries in response.resources:
                error = for_code(code)
                if error is UnknownTopicOrPartitionError:
                    continue  # deleted, or not yet known to every broker
                if error is not NoError:
                    raise error(text)
                configs[name] = [
                    (key, value, source == _SET_ON_THE_TOPIC)
                    for key, value, _, source, *_ in entries
                    if value is not None
                ]
        return configs


async def verify_topics(settings: Settings) -> None:
    """Check, before a worker starts, that it can work with the cluster's topics.

    What only people can decide (conflicts), what an operator chose for a topic, and the number of
    partitions do not stop a worker; they are logged.

    Raises:
        TopicsMismatch: a topic is missing or has settings that break a promise.
        BrokerUnavailable: no broker answers.
    """
    async with TopicAdmin(settings) as admin:
        plan = await admin.plan()
    for difference in (*plan.changes, *plan.chosen, *plan.conflicts):
        if difference not in plan.blocking:
            log.warning("topics.differ", topic=difference.name, difference=str(difference))
    if plan.blocking:
        lines = [f"  {change.name}: {change}" for change in plan.blocking]
        raise TopicsMismatch(
            f"checking the topics at {settings.kafka_brokers}: not what the catalogue says\n"
            + "\n".join(lines),
            repair="cortex-stream topics apply",
        )


def _check(change: Change, outcome: tuple[int, str | None]) -> None:
    code, text = outcome
    error = for_code(code)
    if error is not NoError and error is not TopicAlreadyExistsError:
        raise error(f"{change.name}: {change}: {text}")
