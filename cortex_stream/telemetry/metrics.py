"""The one table of metrics. Each line is a metric of `/metrics` and a row of the reference.

Labels have few values by construction: lanes, stages, served models, error codes, known types.
Nothing that a producer chooses freely ever becomes a label.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)  # memory, CPU seconds and open files of this process

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

RECORDS_CONSUMED: Final = Counter(
    "cortex_records_consumed_total", "Records taken from Kafka.", ["topic"], registry=REGISTRY
)
REQUESTS: Final = Counter(
    "cortex_requests_total", "Requests parsed.", ["lane", "type"], registry=REGISTRY
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
LANE_DEPTH: Final = Gauge(
    "cortex_lane_depth", "Work items of a lane in the process.", ["lane"], registry=REGISTRY
)
PARTITION_LAG: Final = Gauge(
    "cortex_partition_lag_records",
    "Records of a partition not yet acknowledged.",
    ["topic", "partition"],
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
SESSION_BUSY_SECONDS: Final = Counter(
    "cortex_session_busy_seconds_total",
    "Time a session spent running batches.",
    ["model", "session"],
    registry=REGISTRY,
)
EVENTS_HANDLED: Final = Counter(
    "cortex_events_total", "Events that took effect.", ["type"], registry=REGISTRY
)
READY: Final = Gauge("cortex_ready", "1 while the worker takes work.", registry=REGISTRY)
