"""Lets a model's name mean another version, for every worker, by one record."""

from cortex_stream.clock import Clock
from cortex_stream.delivery.outcome import rfc3339
from cortex_stream.errors import OperatorError
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.record import OutgoingRecord
from cortex_stream.settings.tree import Settings
from schemas.audit import AuditRecord
from schemas.cut_overs import CutOver
from topics.names import AUDIT, MODELS


def name_and_version(reference: str | None) -> tuple[str, str]:
    """Return the two parts of `name@version`.

    Raises:
        OperatorError: it is not that.
    """
    name, _, version = (reference or "").partition("@")
    if not name or not version:
        raise OperatorError(f"cutting over to {reference!r}: wanted name@version, such as minilm@2")
    return name, version


async def cut_over(
    settings: Settings, reference: str, *, replay_id: str | None, principal: str, clock: Clock
) -> None:
    """Write down who decides it, then publish that the name means this version from now on.

    Raises:
        OperatorError: `reference` is not `name@version`; BrokerUnavailable: no broker answers.
    """
    name, version = name_and_version(reference)
    at = rfc3339(clock.unix_ms())
    audited = AuditRecord(
        schema_version="cortex.audit.v1",
        at=at,
        principal=principal,
        action="model.cut_over",
        subject=reference,
        details={"replay_id": replay_id},
    )
    decided = CutOver(
        schema_version="cortex.cut_over.v1",
        name=name,
        version=version,
        at=at,
        principal=principal,
        replay_id=replay_id,
    )
    async with KafkaProducer(settings) as producer:
        await producer.send(
            OutgoingRecord(AUDIT, principal.encode(), audited.model_dump_json().encode())
        )
        await producer.send(
            OutgoingRecord(MODELS, name.encode(), decided.model_dump_json().encode())
        )
