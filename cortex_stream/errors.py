"""Every failure knows its wire code and its fate.

Codes are part of the wire contract: they are documented in `docs/reference/errors.md` (generated
from the classes below), never renamed, never reused.
"""

from enum import StrEnum
from typing import ClassVar


class Disposition(StrEnum):
    """What becomes of a request that met an error."""

    REJECT = "reject"  # the request is at fault: outcome `rejected`, dead letter as evidence
    RETRY = "retry"  # the world is at fault and may heal: try again, then dead-letter
    DEAD_LETTER = "dead_letter"  # retrying cannot help although the request is fine
    EXPIRE = "expire"  # nobody waits any more: outcome `expired`
    FATAL = "fatal"  # this process cannot go on; nothing is acknowledged


class CortexError(Exception):
    """Something unforeseen; each subclass is something foreseen, with a code and a fate of its own.

    Attributes:
        code: stable identifier on the wire.
        disposition: the fate of a request that met this error.
        field: path of the offending input such as `data.texts[3]`, if there is one.
    """

    code: ClassVar[str] = "internal"
    disposition: ClassVar[Disposition] = Disposition.DEAD_LETTER

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvariantError(CortexError):
    """Something that cannot happen has happened. This is a bug in cortex-stream."""

    code = "invariant"
    disposition = Disposition.FATAL


# ---- the request is at fault ---------------------------------------------------------------------


class Refused(CortexError):
    """The request cannot be answered as it is; changing it will help, repeating it will not."""

    code = "invalid_request"
    disposition = Disposition.REJECT


class EmptyRecord(Refused):
    """The record has no value."""

    code = "empty_record"


class UnreadableRecord(Refused):
    """The record's framing cannot be decoded, such as a header name that is not UTF-8."""

    code = "unreadable_record"


class InvalidJson(Refused):
    """The value is not one JSON object in UTF-8."""

    code = "invalid_json"


class DuplicateKey(Refused):
    """One of the keys `id`, `type`, `data` stands twice in the JSON object."""

    code = "duplicate_key"


class RecordTooLarge(Refused):
    """The record is larger than a request may be."""

    code = "record_too_large"


class TooDeep(Refused):
    """The JSON is nested deeper than allowed."""

    code = "too_deep"


class InvalidEnvelope(Refused):
    """The CloudEvents attributes are missing or wrong."""

    code = "invalid_envelope"


class InvalidField(Refused):
    """A field of `data` is missing, of the wrong type, or out of range."""

    code = "invalid_field"


class LimitExceeded(Refused):
    """More texts, or a longer text, than one request may carry."""

    code = "limit_exceeded"


class UnknownType(Refused):
    """No route exists for this request type."""

    code = "unknown_type"


class UnknownEvent(Refused):
    """No handler exists for this event type."""

    code = "unknown_event"


class UnknownModel(Refused):
    """The model or the version is not served here."""

    code = "unknown_model"


class Conflict(Refused):
    """The id was used for another payload a short while ago; a request of its own needs a new id."""

    code = "conflict"


# ---- the world is at fault -----------------------------------------------------------------------


class Expired(CortexError):
    """The deadline passed before the work began, or would pass before it could begin."""

    code = "deadline_exceeded"
    disposition = Disposition.EXPIRE


class InferenceFailed(CortexError):
    """The model run failed; a second try may succeed."""

    code = "inference_failed"
    disposition = Disposition.RETRY


class StageTimeout(CortexError):
    """A stage took longer than its pipeline allows."""

    code = "stage_timeout"
    disposition = Disposition.RETRY


class DeviceFailed(CortexError):
    """The device of a runner is lost; what ran on it is not at fault, and runs elsewhere."""

    code = "device_failed"
    disposition = Disposition.RETRY


class DeviceOutOfMemory(DeviceFailed):
    """The device of a runner has no memory left for a run."""

    code = "device_out_of_memory"


class InvalidOutput(CortexError):
    """The model gave numbers that are not an answer (NaN, wrong shape)."""

    code = "invalid_output"
    disposition = Disposition.DEAD_LETTER


class OutcomeTooLarge(CortexError):
    """The outcome does not fit into a record of the results topic."""

    code = "outcome_too_large"
    disposition = Disposition.DEAD_LETTER


class RetryBudgetSpent(CortexError):
    """The failure may heal, but so many requests fail that no more of them are tried again."""

    code = "retry_budget_spent"
    disposition = Disposition.DEAD_LETTER


class InvalidHandover(CortexError):
    """A handed-over record does not say, or not consistently, what the earlier stages found."""

    code = "invalid_handover"
    disposition = Disposition.DEAD_LETTER


class ResourceExhausted(CortexError):
    """The request alone needs more memory than this worker may ever give it; waiting cannot help."""

    code = "resource_exhausted"
    disposition = Disposition.DEAD_LETTER


class StuckRun(CortexError):
    """The model run did not come back within its time limit."""

    code = "stuck_run"
    disposition = Disposition.DEAD_LETTER


class RunInterrupted(Exception):
    """A run was ended early, because somebody asked for that. Never reaches a request."""


class PoisonousRecord(CortexError):
    """Its worker ended each time this record ran, twice with nothing else running."""

    code = "poisonous_record"
    disposition = Disposition.DEAD_LETTER


# ---- operator-facing: never on the wire ----------------------------------------------------------


class OperatorError(CortexError):
    """A command cannot do what was asked. The message ends with what to do.

    Attributes:
        repair: the command or setting that mends it, or None.
    """

    code = "operator"
    disposition = Disposition.FATAL

    def __init__(self, message: str, *, repair: str | None = None) -> None:
        super().__init__(message)
        self.repair = repair


class UnsafeModel(OperatorError):
    """A model folder that must not be loaded: wrong digest, escaping path, hard link, too large."""

    code = "unsafe_model"


class ModelLoadFailed(OperatorError):
    """A model folder that is intact but cannot be opened as what its manifest says."""

    code = "model_load_failed"


class TopicsMismatch(OperatorError):
    """The cluster's topics are not what the catalogue says."""

    code = "topics_mismatch"


class BrokerUnavailable(OperatorError):
    """No broker answers."""

    code = "broker_unavailable"


class ProducerFatal(OperatorError):
    """Two producers in a row lost their place in the broker's sequence; the process must restart."""

    code = "producer_fatal"


class Stalled(OperatorError):
    """Nothing got on for too long, here or in Kafka; the process must restart."""

    code = "stalled"


class ArtifactFailed(OperatorError):
    """A pinned download did not arrive, or not with the pinned digest."""

    code = "artifact_failed"


class StackFailed(OperatorError):
    """A service of the dev stack did not start or stop."""

    code = "stack_failed"
