"""The names of the topics, without the prefix of an environment."""

from typing import Final

from schemas.priority import Lane

EVENTS: Final = "cortex.events"
RESULTS: Final = "cortex.results"
REPLAYS: Final = "cortex.replays"
INVALIDATIONS: Final = "cortex.invalidations"
DEAD_LETTERS: Final = "cortex.dead-letters"
AUDIT: Final = "cortex.audit"
ATTEMPTS: Final = "cortex.attempts"
MODELS: Final = "cortex.models"
LAKE_VECTORS: Final = "lake.vectors"
STREAM_INSIGHTS: Final = "stream.insights"
FORGE_FEEDBACK: Final = "forge.feedback"


def request_topic(lane: Lane) -> str:
    """Return the topic that feeds `lane`."""
    return f"cortex.requests.{lane.value}"


RETRIES: Final = 3
"""How many retries a request gets, each with a topic, hence a delay, of its own."""

VALIDATION: Final = "validation"
"""The way into every route. Its hand-over topics hold what was set back, requests of tenants that
hold too much of a lane, and what was redriven."""
HANDOVER_STAGES: Final = ("embedding", "inference")
"""The stages that another worker may host."""
PLANNED_HANDOVER_STAGES: Final = ("retrieval",)


def retry_topic(retry: int) -> str:
    """Return the topic in which requests wait for their `retry`-th retry, from 1 to `RETRIES`."""
    return f"cortex.retries.{retry}"


def stage_topic(stage: str, lane: Lane) -> str:
    """Return the topic over which work items of `lane` are handed to the hosts of `stage`."""
    return f"cortex.stages.{stage}.{lane.value}"
