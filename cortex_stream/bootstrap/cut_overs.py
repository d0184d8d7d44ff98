"""Which version each model's name means: read before the worker is ready, followed while it runs.

Invariants:
    A decision for a version that is not served here changes nothing; it is logged, shown, counted.
    While Kafka is away names keep their meaning; then everything is read again.

Owner: the event loop that calls `read` and `run`.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

import structlog

from cortex_stream.engine.models import ServedModels
from cortex_stream.errors import CortexError
from cortex_stream.kafka.reader import ReadRecord, TopicReader
from cortex_stream.settings.tree import Settings
from cortex_stream.telemetry import metrics
from cortex_stream.web.status import CutOverStatus
from schemas.cut_overs import CutOver
from topics.names import MODELS

log = structlog.stdlib.get_logger(__name__)

_AGAIN_S: Final = 1.0
_FETCH_WAIT_S: Final = 5.0  # a record ends it at once: waiting longer asks the brokers less often


class CutOvers:
    """What was decided about names, applied to the models of this worker."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._decided: dict[str, str] = {}
        self._means: dict[str, str] = {}
        self._models: ServedModels | None = None

    async def read(self) -> None:
        """Read all decisions that there are.

        Raises:
            BrokerUnavailable: no broker answers; TopicsMismatch: there is no such topic.
        """
        async with TopicReader(self._settings, [MODELS]) as reader:
            found = _newest([record async for record in reader.to_end()])
        self._decide(found, all_there_is=True)

    def apply_to(self, models: ServedModels) -> None:
        """Apply what was read, and from now on what comes, to `models`."""
        self._models = models
        for name in self._decided:
            self._switch(models, name)

    async def run(self) -> None:
        """Follow the decisions for ever."""
        while True:
            try:
                reader = TopicReader(self._settings, [MODELS], fetch_wait_s=_FETCH_WAIT_S)
                async with reader:
                    found = _newest([record async for record in reader.to_end()])
                    self._decide(found, all_there_is=True)
                    async for record in reader.follow():
                        self._decide(_newest([record]))
            except CortexError as error:
                log.warning("cut_overs.waiting", code=error.code, message=str(error))
            except Exception:  # whatever it is, the worker must go on following
                log.exception("cut_overs.failed")
            await asyncio.sleep(_AGAIN_S)

    def status(self) -> tuple[CutOverStatus, ...]:
        """Return what was decided about the names that are served here."""
        return tuple(
            CutOverStatus(name, wanted=f"{name}@{version}", means=self._means[name])
            for name, version in sorted(self._decided.items())
            if name in self._means
        )

    def _decide(self, found: Mapping[str, str | None], *, all_there_is: bool = False) -> None:
        forgotten = dict.fromkeys(self._decided.keys() - found.keys()) if all_there_is else {}
        for name, version in (forgotten | dict(found)).items():
            if self._decided.get(name) == version:
                continue
            if version is None:
                del self._decided[name]
            else:
                self._decided[name] = version
            if self._models is not None:
                self._switch(self._models, name)

    def _switch(self, models: ServedModels, name: str) -> None:
        version = self._decided.get(name)
        meant = models.switch(name, version)
        if meant is None:
            return  # no version of it is served here
        self._means[name] = meant.reference
        missed = version is not None and meant.identity.version != version
        metrics.CUT_OVER_MISSED.labels(name).set(missed)
        if missed:
            log.warning(
                "cut_over.not_served",
                wanted=f"{name}@{version}",
                keeps=meant.reference,
                repair="serve it (CORTEX_MODELS__SERVE) and restart this worker",
            )
        else:
            log.info("cut_over.applied", name=name, means=meant.reference)


def _newest(records: Iterable[ReadRecord]) -> dict[str, str | None]:
    """Return the newest version decided for each name; None where the decision was taken back."""
    found: dict[str, str | None] = {}
    for record in records:
        try:
            if record.value is None:
                found[(record.key or b"").decode()] = None
            else:
                decided = CutOver.model_validate_json(record.value)
                found[decided.name] = decided.version
        except ValueError:  # also of pydantic, and of bytes that are no text
            log.warning("cut_over.unreadable", partition=record.partition, offset=record.offset)
    return found
