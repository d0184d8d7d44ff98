"""Which part of the work this worker does, and how requests are answered."""

from pathlib import Path
from typing import Final, Literal, get_args

from pydantic import Field, field_validator

from cortex_stream.settings.section import Section

HostedStage = Literal["validation", "embedding", "inference"]
ALL_STAGES: Final[tuple[HostedStage, ...]] = get_args(HostedStage)


class WorkerSettings(Section):
    """What this worker hosts."""

    stages: tuple[HostedStage, ...] = Field(
        ALL_STAGES,
        min_length=1,
        description="Stages that run here (JSON list). With fewer than all, work items are handed"
        " to other workers over topics; every stage belongs to one kind of worker.",
        examples=['["validation","embedding"]'],
    )

    @field_validator("stages")
    @classmethod
    def _in_order(cls, stages: tuple[HostedStage, ...]) -> tuple[HostedStage, ...]:
        if len(set(stages)) < len(stages):
            raise ValueError("a stage stands twice; list each once")
        return tuple(stage for stage in ALL_STAGES if stage in stages)

    @property
    def split(self) -> bool:
        """Tell whether other workers host stages, too."""
        return self.stages != ALL_STAGES


class PipelinesSettings(Section):
    """How requests are answered."""

    file: Path | None = Field(
        None,
        description="Pipelines (YAML); without it `realtime` answers critical requests and"
        " `standard` the others.",
        examples=["/etc/cortex/pipelines.yaml"],
    )
