"""What separates a cluster's topics from the catalogue, as values. Pure: nothing is asked or changed.

Nothing here ever deletes: a topic that the catalogue does not know is not looked at.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from topics.catalogue import (
    NEW_CONFIGS,
    OPERATOR_CONFIGS,
    Profile,
    TopicSpec,
    replication,
)


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """A topic as the catalogue wants it; `name` is the name on the cluster.

    Attributes:
        dispensable: the settings that are left out where the broker does not know them.
    """

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    key_bound: bool = False
    dispensable: frozenset[str] = NEW_CONFIGS


@dataclass(frozen=True, slots=True)
class PresentTopic:
    """A topic as the cluster has it.

    Attributes:
        config: every setting in effect, defaults included.
        overrides: the settings that were made on the topic itself.
    """

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    overrides: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CreateTopic:
    """The topic is missing."""

    topic: WantedTopic

    @property
    def name(self) -> str:
        """The topic's name on the cluster."""
        return self.topic.name

    def __str__(self) -> str:
        topic = self.topic
        return f"create, partitions {topic.partitions}, replication {topic.replication}"


@dataclass(frozen=True, slots=True)
class AlterConfig:
    """Settings differ; `changes` maps each name to what it is and what it shall be."""

    name: str
    changes: Mapping[str, tuple[str | None, str]]

    def __str__(self) -> str:
        changes = (f"{key} {old} → {new}" for key, (old, new) in sorted(self.changes.items()))
        return "set " + ", ".join(changes)


@dataclass(frozen=True, slots=True)
class AddPartitions:
    """The topic has fewer partitions than wanted, and its keys may move."""

    name: str
    present: int
    wanted: int

    def __str__(self) -> str:
        return f"add partitions, {self.present} → {self.wanted}"


Change = CreateTopic | AlterConfig | AddPartitions


@dataclass(frozen=True, slots=True)
class Conflict:
    """A difference that people must decide about; it is only reported."""

    name: str
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Chosen:
    """Settings that an operator made on the topic; they stay unless a plan resets them."""

    name: str
    differing: Mapping[str, tuple[str | None, str]]

    def __str__(self) -> str:
        return ", ".join(
            f"{key} is {own}, the catalogue says {ours}"
            for key, (own, ours) in sorted(self.differing.items())
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that differs, in the order of the catalogue.

    Attributes:
        unknown: the settings that the brokers are too old to know.
    """

    changes: tuple[Change, ...]
    conflicts: tuple[Conflict, ...]
    chosen: tuple[Chosen, ...] = ()
    unknown: frozenset[str] = frozenset()

    @property
    def blocking(self) -> tuple[Change, ...]:
        """The changes without which a worker must not run: missing topics and wrong settings.

        How long records are kept, and which times are taken, is for the operator to choose, and
        workers run with any number of partitions.
        """
        return tuple(change for change in self.changes if _blocks(change))


def wanted_topics(
    specs: Iterable[TopicSpec], *, profile: Profile, prefix: str = ""
) -> tuple[WantedTopic, ...]:
    """Return the catalogue's topics as a cluster of `profile` shall have them, under `prefix`."""
    return tuple(
        WantedTopic(
            name=f"{prefix}.{spec.name}" if prefix else spec.name,
            partitions=spec.partitions(profile),
            replication=replication(profile),
            config=spec.config(profile),
            key_bound=spec.key_bound,
        )
        for spec in specs
    )


def decide_plan(
    wanted: Iterable[WantedTopic], present: Mapping[str, PresentTopic], *, reset: bool = False
) -> Plan:
    """Return what has to change in `present` (by name) to become what is `wanted`.

    With `reset` this takes back what operators chose for a topic: how long its records are kept,
    and which times of records it takes. Shortening either deletes or refuses what is kept today.
    """
    changes: list[Change] = []
    conflicts: list[Conflict] = []
    chosen: list[Chosen] = []
    unknown: set[str] = set()
    for topic in wanted:
        found = present.get(topic.name)
        if found is None:
            changes.append(CreateTopic(topic))
            continue
        left_out = (topic.config.keys() & topic.dispensable) - found.config.keys()
        unknown |= left_out
        differing = {
            key: (found.config.get(key), value)
            for key, value in topic.config.items()
            if key not in left_out and not _same(found.config.get(key), value)
        }
        theirs = set() if reset else differing.keys() & OPERATOR_CONFIGS & found.overrides.keys()
        if theirs:
            chosen.append(Chosen(topic.name, {key: differing.pop(key) for key in theirs}))
        if differing:
            changes.append(AlterConfig(topic.name, differing))
        if found.partitions < topic.partitions and not topic.key_bound:
            changes.append(AddPartitions(topic.name, found.partitions, topic.partitions))
        conflicts += _conflicts(topic, found)
    return Plan(tuple(changes), tuple(conflicts), tuple(chosen), frozenset(unknown))


def _conflicts(topic: WantedTopic, found: PresentTopic) -> Iterable[Conflict]:
    partitions = f"has {found.partitions} partitions, the catalogue says {topic.partitions}"
    if found.partitions > topic.partitions:
        yield Conflict(topic.name, f"{partitions}; Kafka cannot take partitions away")
    if found.partitions < topic.partitions and topic.key_bound:
        yield Conflict(
            topic.name,
            f"{partitions}; added ones would move keys away from their earlier records:"
            " let readers catch up, then recreate the topic",
        )
    if found.replication != topic.replication:
        yield Conflict(
            topic.name,
            f"has replication {found.replication}, the catalogue says {topic.replication};"
            " reassign its partitions with Kafka's own tools",
        )


def _same(present: str | None, wanted: str) -> bool:
    """Compare two values of a setting; the order within a list (`compact,delete`) is no difference."""
    return present is not None and sorted(present.split(",")) == sorted(wanted.split(","))


def _blocks(change: Change) -> bool:
    match change:
        case CreateTopic():
            return True
        case AlterConfig(changes=changes):
            return bool(changes.keys() - OPERATOR_CONFIGS)
        case AddPartitions():
            return False
