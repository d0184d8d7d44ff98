"""Which stages run in this worker, what it therefore reads, and where a work item goes next."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from cortex_stream.routing.route import Route, StageName
from schemas.priority import Lane
from topics.names import request_topic, stage_topic

VALIDATION: Final = "validation"
"""The way into every route: whoever hosts it reads the clients' topics."""

_COMES_AFTER: Final[Mapping[StageName, tuple[str, ...]]] = {
    StageName.EMBEDDING: (VALIDATION,),
    StageName.INFERENCE: (VALIDATION, StageName.EMBEDDING),
}
"""After which stages a work item may reach a stage."""


@dataclass(frozen=True, slots=True)
class Local:
    """The next stage runs in this process."""

    stage: StageName


@dataclass(frozen=True, slots=True)
class Handoff:
    """The next stage runs in another worker: hand the work item over."""

    stage: StageName


class Feed(NamedTuple):
    """A topic that gives a worker work items.

    Attributes:
        topic: its name in the catalogue.
        stage: the stage that its records were handed over to; None for requests of clients.
    """

    topic: str
    lane: Lane
    stage: StageName | None


def next_hop(route: Route, position: int, hosted: Collection[str]) -> Local | Handoff:
    """Return where the stage at `position` of `route` runs, for a worker that hosts `hosted`."""
    stage = route.stages[position]
    return Local(stage) if stage in hosted else Handoff(stage)


def feeds(hosted: Collection[str]) -> tuple[Feed, ...]:
    """Return every topic from which a worker of the stages `hosted` takes work items.

    A stage that can only be reached from stages hosted beside it is fed in memory alone.
    """
    found = [Feed(request_topic(lane), lane, None) for lane in Lane if VALIDATION in hosted]
    for stage, before in _COMES_AFTER.items():
        if stage in hosted and any(each not in hosted for each in before):
            found += [Feed(stage_topic(stage, lane), lane, stage) for lane in Lane]
    return tuple(found)
