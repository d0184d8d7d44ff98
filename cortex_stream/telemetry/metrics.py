"""The one table of metrics. Each line is a metric of `/metrics` and a row of the reference.

Labels have few values by construction: lanes, stages, served models, error codes, known types.
Nothing that a producer chooses freely ever becomes a label.
"""

from functools import cache
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics import MetricWrapperBase

REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)  # memory, CPU seconds and open files of this process

M = TypeVar("M", bound=MetricWrapperBase)


@cache
def labelled(metric: M, *values: str) -> M:
    """Return the metric with these labels, for what is counted with every request.

    Remembers it, since finding it again costs 2 µs. Not for a metric whose labels are ever removed.
    """
    return metric.labels(*values)


_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

RECORDS_CONSUMED: Final = Counter(
    "cortex_records_consumed_total", "Records taken from Kafka.", ["topic"], registry=REGISTRY
)
RECORDS_DELETED_UNREAD: Final = Counter(
    "cortex_records_deleted_unread_total",
    "Records that Kafka's retention deleted before they were read: they have no outcome.",
    ["topic"],
    registry=REGISTRY,
)
REQUESTS: Final = Counter(
    "cortex_requests_total",
    "Valid requests; one that was set back, when its turn comes.",
    ["lane", "type"],
    registry=REGISTRY,
)
OUTCOMES: Final = Counter(
    "cortex_outcomes_total",
    "Outcomes that became durable.",
    ["kind", "type", "code"],
    registry=REGISTRY,
)
REQUEST_SECONDS: Final = Histogram(
    "cortex_request_seconds",
    "From admission to durable outcome.",
    ["lane"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
STAGE_SECONDS: Final = Histogram(
    "cortex_stage_seconds", "Time in a stage.", ["stage"], buckets=_SECONDS, registry=REGISTRY
)
HANDOVERS: Final = Counter(
    "cortex_handovers_total",
    "Work items handed over to the workers of a stage.",
    ["stage"],
    registry=REGISTRY,
)
RETRIES: Final = Counter(
    "cortex_retries_total",
    "Further attempts decided on; retry is the number of the topic in which the request waits, 0:"
    " at once.",
    ["retry", "code"],
    registry=REGISTRY,
)
RETRIES_WAITING: Final = Gauge(
    "cortex_retries_waiting",
    "Requests of a retry topic in the process: they wait for their time, or run.",
    ["retry"],
    registry=REGISTRY,
)
RETRY_BUDGET_LEFT: Final = Gauge(
    "cortex_retry_budget_left",
    "Retries that could be made now; below 1, what fails is a dead letter.",
    registry=REGISTRY,
)
LANE_DEPTH: Final = Gauge(
    "cortex_lane_depth", "Work items of a lane in the process.", ["lane"], registry=REGISTRY
)
LANE_TOKENS: Final = Counter(
    "cortex_lane_tokens_total",
    "Tokens run for a lane: who got how much of the runners.",
    ["lane"],
    registry=REGISTRY,
)
LANE_WORST_WAIT_SECONDS: Final = Gauge(
    "cortex_lane_worst_wait_seconds",
    "Longest wait for a runner in the last minute.",
    ["lane"],
    registry=REGISTRY,
)
LANE_HELD_BYTES: Final = Gauge(
    "cortex_lane_held_bytes",
    "Memory that a lane's work items in the process count for.",
    ["lane"],
    registry=REGISTRY,
)
LANE_SHED_SECONDS: Final = Counter(
    "cortex_lane_shed_seconds_total",
    "Time a lane was paused because memory was short.",
    ["lane"],
    registry=REGISTRY,
)
MEMORY_USED_BYTES: Final = Gauge(
    "cortex_memory_used_bytes", "Memory used of the limit that is nearest.", registry=REGISTRY
)
MEMORY_LIMIT_BYTES: Final = Gauge(
    "cortex_memory_limit_bytes", "The memory limit that is nearest.", registry=REGISTRY
)
MEMORY_STATE: Final = Gauge(
    "cortex_memory_state",
    "1 for the present state: `normal`, `shedding`, `stopped` or `recovering`.",
    ["state"],
    registry=REGISTRY,
)
PARTITION_LAG: Final = Gauge(
    "cortex_partition_lag_records",
    "Records of a partition not yet acknowledged.",
    ["topic", "partition"],
    registry=REGISTRY,
)
REBALANCE_PAUSE_SECONDS: Final = Histogram(
    "cortex_rebalance_pause_seconds",
    "From the moment a rebalance stops the intake until records come in again.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
BATCH_ROWS: Final = Histogram(
    "cortex_batch_rows",
    "Rows run together.",
    ["model"],
    buckets=(1, 2, 4, 8, 16, 32, 64),
    registry=REGISTRY,
)
BATCH_TOKENS: Final = Counter(
    "cortex_batch_tokens_total",
    "Tokens run; kind is `real`, or `padding` that was computed for nothing.",
    ["model", "kind"],
    registry=REGISTRY,
)
BATCH_PADDING_RATIO: Final = Histogram(
    "cortex_batch_padding_ratio",
    "Share of a batch's computed tokens that was padding, from 0 to 1.",
    ["model"],
    buckets=(0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1),
    registry=REGISTRY,
)
BATCH_SECONDS: Final = Counter(
    "cortex_batch_seconds_total",
    "Time of the batches that could be predicted; kind is `measured` or `predicted`.",
    ["model", "kind"],
    registry=REGISTRY,
)
RUNNER_BUSY_SECONDS: Final = Counter(
    "cortex_runner_busy_seconds_total",
    "Time a runner spent running batches.",
    ["model", "runner"],
    registry=REGISTRY,
)
RUNS_INTERRUPTED: Final = Counter(
    "cortex_runs_interrupted_total",
    "Runs of replays that gave way to live requests; their rows run again later.",
    ["model"],
    registry=REGISTRY,
)
RUNNERS_IN_SERVICE: Final = Gauge(
    "cortex_runners_in_service",
    "Runners of a model that work, standby runners too; 0: its requests wait.",
    ["model"],
    registry=REGISTRY,
)
DEDUPE_CHECKS: Final = Counter(
    "cortex_dedupe_checks_total",
    "Requests compared with the dedupe window; answer is `passed`, `conflict`, or `unchecked`:"
    " Redis did not answer.",
    ["answer"],
    registry=REGISTRY,
)
CIRCUIT_OPEN: Final = Gauge(
    "cortex_circuit_open",
    "1 while a dependency is left alone because it failed.",
    ["dependency"],
    registry=REGISTRY,
)
SUSPECTS: Final = Counter(
    "cortex_suspects_total",
    "Records run again, and counted, because they may have ended a worker; trial is `in_company`,"
    " `alone`, `alone_again`, or, not run any more, `given_up` or `unread`.",
    ["trial"],
    registry=REGISTRY,
)
EVENTS_HANDLED: Final = Counter(
    "cortex_events_total", "Events that took effect.", ["type"], registry=REGISTRY
)
CUT_OVER_MISSED: Final = Gauge(
    "cortex_cut_over_missed",
    "1 while a model's name should mean a version that this worker does not serve.",
    ["name"],
    registry=REGISTRY,
)
READY: Final = Gauge("cortex_ready", "1 while the worker takes work.", registry=REGISTRY)
