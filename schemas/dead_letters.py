"""Dead letters: the failed record as it came, with what went wrong in headers beside its own."""

from typing import Final

CODE: Final = "cortex_dlt-code"
MESSAGE: Final = "cortex_dlt-message"
CLASS: Final = "cortex_dlt-class"
STAGE: Final = "cortex_dlt-stage"
ATTEMPTS: Final = "cortex_dlt-attempts"
WORKER: Final = "cortex_dlt-worker"
MODEL: Final = "cortex_dlt-model"
FIRST_TIME: Final = "cortex_dlt-first-time"
LAST_TIME: Final = "cortex_dlt-last-time"
ORIGINAL_TOPIC: Final = "cortex_dlt-original-topic"
ORIGINAL_PARTITION: Final = "cortex_dlt-original-partition"
ORIGINAL_OFFSET: Final = "cortex_dlt-original-offset"
ORIGINAL_TIMESTAMP: Final = "cortex_dlt-original-timestamp"
TRUNCATED: Final = "cortex_dlt-truncated"
"""Present, as `value`, when the original value was too large to be copied; the pointer headers
(topic, partition, offset) still lead to it while the source topic retains it."""
REDRIVE_COUNT: Final = "cortex_dlt-redrive-count"
"""How often the dead letter had been redriven when the request failed again; absent before."""

HEADERS: Final = (
    CODE,
    MESSAGE,
    CLASS,
    STAGE,
    ATTEMPTS,
    WORKER,
    MODEL,
    FIRST_TIME,
    LAST_TIME,
    ORIGINAL_TOPIC,
    ORIGINAL_PARTITION,
    ORIGINAL_OFFSET,
    ORIGINAL_TIMESTAMP,
)
