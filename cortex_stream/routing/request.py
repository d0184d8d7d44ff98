"""A request that has been read, validated and sanitised, and the work item it becomes."""

from cortex_stream.deadline import Deadline
from cortex_stream.record import RecordSource
from cortex_stream.routing.pipeline import Pipeline
from cortex_stream.routing.route import Route
from cortex_stream.values import value
from schemas.handovers import Reinjection, Waiting
from schemas.priority import Lane
from schemas.requests import RequestAttributes, RequestData


@value()
class Request:
    """One valid request. Its texts are NFC and free of control characters.

    Attributes:
        payload_digest: sha256 of the `data` as it came, 32 bytes; part of the outcome id.
    """

    attributes: RequestAttributes
    data: RequestData
    payload_digest: bytes

    @property
    def tenant(self) -> str:
        """See `tenant_of`."""
        return tenant_of(self.attributes)


@value()
class WorkItem:
    """A request on its way.

    Attributes:
        lane: where it waits; its topic's lane or a lower one.
        pipeline: what the request is answered by, with its limits.
        route: the stages that answer it.
        position: where in the route this worker begins.
        weight_bytes: estimate of the memory that it holds until it has ended.
        deadline: when nobody waits any more, on this process's monotonic clock.
        reinjection: set once a replay or a redrive has put the request back.
        waited: set once it has waited for a retry; says for the last one.
    """

    request: Request
    source: RecordSource
    lane: Lane
    pipeline: Pipeline
    route: Route
    position: int
    weight_bytes: int
    deadline: Deadline | None
    reinjection: Reinjection | None = None
    waited: Waiting | None = None


def tenant_of(attributes: RequestAttributes) -> str:
    """Return for whom the work is done: who shares a lane fairly with others."""
    return attributes.tenant or attributes.source
