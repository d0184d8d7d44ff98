"""Which topics a worker consumes, and how much of each may be in the process."""

from math import ceil

from cortex_stream.routing.hosting import Feed, feeds
from cortex_stream.scheduling.admission import LEAST_RECORDS, Bound
from cortex_stream.settings.sections import LanesSettings
from cortex_stream.settings.tree import Settings
from schemas.priority import Lane
from topics.names import EVENTS, VALIDATION


def admission_bounds(settings: Settings) -> dict[str, Bound]:
    """Return the bound of each consumed topic, by its name on the cluster."""
    lanes = settings.lanes
    bounds = {
        settings.topic(feed.topic): _bound(feed, lanes) for feed in feeds(settings.worker.stages)
    }
    if VALIDATION in settings.worker.stages:
        bounds[settings.topic(EVENTS)] = Bound(lanes.high, lanes.lane_bytes)
    return bounds


def lane_topics(settings: Settings, lane: Lane) -> tuple[str, ...]:
    """Return the consumed topics that feed `lane`, by their names on the cluster."""
    return tuple(
        settings.topic(feed.topic) for feed in feeds(settings.worker.stages) if feed.lane is lane
    )


def retry_topics(settings: Settings) -> dict[str, str]:
    """Return the consumed retry topics, by their names on the cluster, under their numbers."""
    return {
        feed.topic.rpartition(".")[2]: settings.topic(feed.topic)
        for feed in feeds(settings.worker.stages)
        if feed.waits
    }


def _bound(feed: Feed, lanes: LanesSettings) -> Bound:
    """Return how much of one topic may be in the process.

    What was set back has an eighth of its lane's bound, and twice what a poll needs at least, so that
    it is served without a pause. A retry holds its room while it only waits, so there is little for
    retries: who comes next waits in Kafka, and less long here.
    """
    if feed.lane is None:
        return Bound(ceil(lanes.medium / 4), ceil(lanes.lane_bytes / 16))
    records = _lane_records(lanes)[feed.lane]
    if feed.stage != VALIDATION or feed.lane is Lane.REPLAY:
        return Bound(records, lanes.lane_bytes)
    return Bound(
        min(records, max(2 * LEAST_RECORDS, ceil(records / 8))), ceil(lanes.lane_bytes / 8)
    )


def _lane_records(lanes: LanesSettings) -> dict[Lane, int]:
    return {lane: getattr(lanes, lane.value) for lane in Lane}
