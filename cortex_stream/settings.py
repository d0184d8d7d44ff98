"""One frozen settings tree, read once from the environment, validated together, passed in sections.

Names fixed by the platform stand at the top (`KAFKA_BROKERS`, `REDIS_URL`, …); everything else is
`CORTEX_<SECTION>__<FIELD>`. `docs/reference/settings.md` is generated from the fields below.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from cortex_stream.errors import OperatorError


def _host_ports(value: str) -> str:
    for part in value.split(","):
        host, _, port = part.strip().rpartition(":")
        if not host or "/" in host or not port.isdigit() or not 0 < int(port) < 1 << 16:
            raise ValueError(f"{part!r} is not host:port, such as 127.0.0.1:9092,127.0.0.1:9093")
    return value.replace(" ", "")


class Section(BaseModel):
    """One part of the tree: frozen, and a misspelt name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSecurity(Section):
    """How clients prove who they are to Kafka."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Transport and authentication.", examples=["SASL_SSL"]
    )
    ca_file: Path | None = Field(
        None, description="CA certificates (PEM); the system's if unset.", examples=["/etc/ca.pem"]
    )
    cert_file: Path | None = Field(
        None, description="Client certificate (PEM) for mutual TLS.", examples=["/run/tls/tls.crt"]
    )
    key_file: Path | None = Field(
        None, description="Key of the client certificate (PEM).", examples=["/run/tls/tls.key"]
    )
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="SASL mechanism.", examples=["SCRAM-SHA-256"]
    )
    username: str | None = Field(None, description="SASL user.", examples=["cortex"])
    password: SecretStr | None = Field(None, description="SASL password.", examples=["…"])
    password_file: Path | None = Field(
        None, description="File that holds the SASL password.", examples=["/run/secrets/kafka"]
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.protocol.startswith("SASL") and (
            self.username is None or (self.password is None and self.password_file is None)
        ):
            raise ValueError(
                f"protocol {self.protocol} needs username and password (or password_file)"
            )
        return self

    def sasl_password(self) -> str:
        """Return the password from its file or its variable."""
        if self.password_file is not None:
            try:
                return self.password_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise OperatorError(
                    f"reading the SASL password from {self.password_file}: {error}",
                    repair="mend CORTEX_KAFKA__SECURITY__PASSWORD_FILE",
                ) from error
        if self.password is None:
            raise OperatorError(
                "reading the SASL password: none is set",
                repair="export CORTEX_KAFKA__SECURITY__PASSWORD_FILE=…",
            )
        return self.password.get_secret_value()


class KafkaSettings(Section):
    """How this process lives in its Kafka cluster."""

    topic_prefix: str = Field(
        "",
        pattern=r"^[a-z0-9][a-z0-9-]*$|^$",
        description="Puts the whole system, topics and group, under `<prefix>.`.",
        examples=["staging"],
    )
    session_timeout_s: float = Field(
        10.0, ge=1, description="Kafka waits this long for a silent member.", examples=[6.0]
    )
    heartbeat_interval_s: float = Field(
        1.0, gt=0, description="Seconds between signs of life.", examples=[1.0]
    )
    commit_interval_s: float = Field(
        1.0,
        gt=0,
        description="Seconds between commits; shorter means fewer duplicates after a crash.",
        examples=[0.5],
    )
    drain_timeout_s: float = Field(
        5.0,
        gt=0,
        description="On revoke and stop, running work may take this long to finish.",
        examples=[3.0],
    )
    instance_id: str | None = Field(
        None,
        description="Static membership; must be unique per process, Kafka does not fence it.",
        examples=["worker-0"],
    )
    profile: Literal["dev", "prod"] = Field(
        "dev",
        description="dev: 4 partitions a lane, replication 1. prod: 12 and 3, min.insync 2.",
        examples=["prod"],
    )
    security: KafkaSecurity = KafkaSecurity()


class LimitsSettings(Section):
    """What one request may weigh. Beyond it the request is rejected, with the limit in the text."""

    request_bytes: int = Field(
        1 << 20, ge=1024, description="Bytes of a request record's value.", examples=[262144]
    )
    texts: int = Field(256, ge=1, description="Texts in one request.", examples=[64])
    text_bytes: int = Field(
        32 << 10, ge=1, description="UTF-8 bytes of one text.", examples=[16384]
    )
    labels: int = Field(64, ge=1, description="Labels of one classify request.", examples=[16])
    json_depth: int = Field(
        32, ge=2, le=200, description="Levels of nesting in the JSON.", examples=[16]
    )  # orjson writes 254 at most
    outcome_bytes: int = Field(
        8_000_000,
        ge=1024,
        le=8_300_000,
        description="Bytes of an outcome; below the results topic's max.message.bytes (8 MiB).",
        examples=[1_000_000],
    )
    error_message_bytes: int = Field(
        8 << 10,
        ge=256,
        le=8 << 10,
        description="Bytes of an error message in headers.",
        examples=[1024],
    )


class LanesSettings(Section):
    """How many work items of each lane may wait in the process. The rest waits in Kafka."""

    critical: int = Field(1000, ge=1, description="Work items.", examples=[1000])
    high: int = Field(1000, ge=1, description="Work items.", examples=[1000])
    medium: int = Field(5000, ge=1, description="Work items.", examples=[5000])
    low: int = Field(10000, ge=1, description="Work items.", examples=[10000])
    replay: int = Field(1000, ge=1, description="Work items.", examples=[1000])
    lane_bytes: ByteSize = Field(
        ByteSize(64 << 20), ge=1 << 20, description="Record bytes per lane.", examples=["64MiB"]
    )


class ModelsSettings(Section):
    """Where models are kept and which are served."""

    folder: Path = Field(
        Path("models"), description="Holds `<name>/<version>/model.yaml`.", examples=["/models"]
    )
    serve: tuple[str, ...] = Field(
        ("minilm",),
        min_length=1,
        description="Models this worker loads, as `name` or `name@version` (JSON list).",
        examples=['["minilm","bge-small"]'],
    )
    embed_default: str = Field(
        "minilm", description="Model of requests that name none.", examples=["e5-small"]
    )
    file_bytes: ByteSize = Field(
        ByteSize(4 << 30),
        description="A model file larger than this is not opened.",
        examples=["1GiB"],
    )


class InferenceSettings(Section):
    """How models run."""

    provider: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes CUDA when ONNX Runtime offers it.", examples=["cpu"]
    )
    sessions: int = Field(
        0,
        ge=0,
        description="CPU sessions per model, one thread each; 0: one per usable core.",
        examples=[2],
    )
    batch_rows: int = Field(
        8,
        ge=1,
        description="Rows of one CPU batch; MAX_BATCH_SIZE is its ceiling. Small is fast here.",
        examples=[8],
    )
    batch_tokens: int = Field(
        256,
        ge=1,
        description="Padded tokens (rows x longest) of one CPU batch.",
        examples=[512],
    )
    run_timeout_s: float = Field(
        30.0, gt=0, description="A model run that takes longer is stuck.", examples=[60.0]
    )
    attempts: int = Field(
        3, ge=1, description="Tries of a retryable failure before the dead letter.", examples=[3]
    )


class WebSettings(Section):
    """The status pages and metrics."""

    host: str = Field("127.0.0.1", description="Address to listen on.", examples=["0.0.0.0"])  # noqa: S104 (an example)
    port: int = Field(
        6066,
        ge=0,
        le=65535,
        description="Port; when it is taken the next free one is used and logged.",
        examples=[6066],
    )
    token: SecretStr | None = Field(
        None, description="Demanded (Bearer) unless the host is loopback.", examples=["…"]
    )

    @property
    def loopback(self) -> bool:
        """Tell whether only this machine can reach the pages."""
        return self.host in {"127.0.0.1", "::1", "localhost"}

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if not self.loopback and self.token is None:
            raise ValueError(f"listening on {self.host} needs a token: set CORTEX_WEB__TOKEN")
        return self


class LogSettings(Section):
    """What is logged and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level shown.", examples=["debug"]
    )
    format: Literal["auto", "console", "json"] = Field(
        "auto",
        description="auto: console on a terminal, else one JSON object a line.",
        examples=["json"],
    )


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
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        validation_alias="REDIS_URL",
        description="Redis; may carry a password, so it is never shown.",
        examples=["rediss://:…@redis:6379/0"],
    )
    postgres_url: SecretStr = Field(
        SecretStr("postgresql://postgres@127.0.0.1:5432/postgres"),
        validation_alias="POSTGRES_URL",
        description="PostgreSQL with pgvector; may carry a password, so it is never shown.",
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
    models: ModelsSettings = ModelsSettings()
    inference: InferenceSettings = InferenceSettings()
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
        """The consumer group of the workers."""
        return self.topic("cortex-stream")


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
