"""Which stages run in this worker, what it therefore reads, and where a work item goes next."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from cortex_stream.routing.route import Route, StageName
from schemas.priority import Lane, Priority
from topics.names import RETRIES, VALIDATION, request_topic, retry_topic, stage_topic

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
        lane: the lane it feeds; None for retries, of which each says its own.
        stage: the stage that its records were handed over to; `validation` for requests that begin
            again (set back, retried, replayed, redriven), None for requests of clients.
    """

    topic: str
    lane: Lane | None
    stage: str | None

    @property
    def waits(self) -> bool:
        """Whether its records must not begin before their time."""
        return self.lane is None


def next_hop(route: Route, position: int, hosted: Collection[str]) -> Local | Handoff:
    """Return where the stage at `position` of `route` runs, for a worker that hosts `hosted`."""
    stage = route.stages[position]
    return Local(stage) if stage in hosted else Handoff(stage)


def feeds(hosted: Collection[str]) -> tuple[Feed, ...]:
    """Return every topic from which a worker of the stages `hosted` takes work items.

    A stage that can only be reached from stages hosted beside it is fed in memory alone.
    """
    found: list[Feed] = []
    if VALIDATION in hosted:
        lanes = [Lane(priority) for priority in Priority]
        found += [Feed(request_topic(lane), lane, None) for lane in lanes]
        found += [Feed(request_topic(Lane.REPLAY), Lane.REPLAY, VALIDATION)]
        found += [Feed(stage_topic(VALIDATION, lane), lane, VALIDATION) for lane in lanes]
        found += [Feed(retry_topic(retry), None, VALIDATION) for retry in range(1, RETRIES + 1)]
    for stage, before in _COMES_AFTER.items():
        if stage in hosted and any(each not in hosted for each in before):
            found += [Feed(stage_topic(stage, lane), lane, stage) for lane in Lane]
    return tuple(found)
