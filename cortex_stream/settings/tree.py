"""One frozen settings tree, read once from the environment, validated together, passed in sections.

Names fixed by the platform stand at the top (`KAFKA_BROKERS`, `REDIS_URL`, …); everything else is
`CORTEX_<SECTION>__<FIELD>`. `docs/reference/settings.md` is generated from the fields.
"""

import os
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, ByteSize, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from cortex_stream.errors import OperatorError
from cortex_stream.settings.kafka import KafkaSettings
from cortex_stream.settings.sections import (
    BatchingSettings,
    DedupeSettings,
    InferenceSettings,
    LanesSettings,
    LimitsSettings,
    LogSettings,
    MemorySettings,
    ModelsSettings,
    RetriesSettings,
    WebSettings,
)
from cortex_stream.settings.stages import PipelinesSettings, WorkerSettings


def _host_ports(value: str) -> str:
    for part in value.split(","):
        host, _, port = part.strip().rpartition(":")
        if not host or "/" in host or not port.isdigit() or not 0 < int(port) < 1 << 16:
            raise ValueError(f"{part!r} is not host:port, such as 127.0.0.1:9092,127.0.0.1:9093")
    return value.replace(" ", "")


def _given(value: SecretStr | None) -> SecretStr | None:
    return value or None  # compose passes on an unset variable as an empty one


_PLACES = (
    "KAFKA_BROKERS",
    "REDIS_URL",
    "POSTGRES_URL",
    "CORTEX_KAFKA__",
    "CORTEX_MODELS__",
    "CORTEX_WEB__",
)


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix="CORTEX_",
        env_nested_delimiter="__",
        frozen=True,
        extra="ignore",
        populate_by_name=True,
    )

    kafka_brokers: Annotated[str, AfterValidator(_host_ports)] = Field(
        "127.0.0.1:9092",
        validation_alias="KAFKA_BROKERS",
        description="Kafka bootstrap addresses, `host:port[,host:port]`.",
        examples=["kafka-1:9092,kafka-2:9092"],
    )
    redis_url: Annotated[SecretStr | None, AfterValidator(_given)] = Field(
        None,
        validation_alias="REDIS_URL",
        description="Redis, for the dedupe window; without it there is none. May carry a password,"
        " so it is never shown.",
        examples=["rediss://:…@redis:6379/0"],
    )
    postgres_url: SecretStr = Field(
        SecretStr("postgresql://postgres@127.0.0.1:5432/postgres"),
        validation_alias="POSTGRES_URL",
        description="PostgreSQL with pgvector, for later releases: no worker uses it, only `doctor`"
        " looks. May carry a password, so it is never shown.",
        examples=["postgresql://cortex:…@db/cortex"],
    )
    model_cache_size: ByteSize = Field(
        ByteSize(2_000_000_000),
        validation_alias="MODEL_CACHE_SIZE",
        description="Model files one worker may hold open, in all.",
        examples=["2GB"],
    )
    max_batch_size: int = Field(
        32,
        ge=1,
        validation_alias="MAX_BATCH_SIZE",
        description="Rows no batch may exceed, on any device.",
        examples=[32],
    )
    kafka: KafkaSettings = KafkaSettings()
    limits: LimitsSettings = LimitsSettings()
    lanes: LanesSettings = LanesSettings()
    memory: MemorySettings = MemorySettings()
    models: ModelsSettings = ModelsSettings()
    inference: InferenceSettings = InferenceSettings()
    retries: RetriesSettings = RetriesSettings()
    batching: BatchingSettings = BatchingSettings()
    dedupe: DedupeSettings = DedupeSettings()
    worker: WorkerSettings = WorkerSettings()
    pipelines: PipelinesSettings = PipelinesSettings()
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.kafka.heartbeat_interval_s * 3 > self.kafka.session_timeout_s:
            raise ValueError(
                "CORTEX_KAFKA__HEARTBEAT_INTERVAL_S must be at most a third of SESSION_TIMEOUT_S,"
                " or one lost heartbeat costs the membership"
            )
        if self.models.embed_default not in {ref.partition("@")[0] for ref in self.models.serve}:
            raise ValueError(
                f"CORTEX_MODELS__EMBED_DEFAULT {self.models.embed_default!r} is not among"
                f" CORTEX_MODELS__SERVE {list(self.models.serve)}"
            )
        return self

    def topic(self, name: str) -> str:
        """Return the topic's name on the cluster: `name` under the prefix."""
        return f"{self.kafka.topic_prefix}.{name}" if self.kafka.topic_prefix else name

    @property
    def group(self) -> str:
        """The consumer group of this kind of workers: those that host the same stages."""
        kind = self.worker.stages if self.worker.split else ()
        return self.topic(".".join(("cortex-stream", *kind)))


def load_settings() -> Settings:
    """Read the environment once.

    Raises:
        OperatorError: a value is wrong; the text names every variable to change.
    """
    known = {name.upper() for name in Settings.model_fields}
    for name in os.environ:
        section = name.upper().removeprefix("CORTEX_").partition("__")[0]
        if name.upper().startswith("CORTEX_") and "__" in name and section not in known:
            raise OperatorError(
                f"reading the settings: {name} belongs to no section; there are"
                f" {', '.join(sorted(Settings.model_fields))}"
            )
    try:
        return Settings()
    except SettingsError as error:
        raise OperatorError(
            f"reading the settings: {error}; a list is written as JSON: '[\"minilm\"]'"
        ) from error
    except ValidationError as error:
        lines = [
            f"  {_variable(e['loc'])}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        raise OperatorError("reading the settings:\n" + "\n".join(lines)) from error


def enter_environment(variables: Mapping[str, str]) -> Settings:
    """Point this process and its future children to other services; return the settings.

    What said where things are (brokers, stores, models, pages) is forgotten first; how models run
    stays. For commands that bring their own services, such as the demo.
    """
    for name in list(os.environ):
        if name.upper().startswith(_PLACES):
            del os.environ[name]
    os.environ.update(variables)
    return load_settings()


def _variable(loc: tuple[int | str, ...]) -> str:
    if not loc:
        return "settings"
    if str(loc[0]).isupper():
        return str(loc[0])
    return "CORTEX_" + "__".join(str(part) for part in loc).upper()
