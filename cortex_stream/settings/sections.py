"""The parts of the settings tree, but for Kafka's."""

from pathlib import Path
from typing import Literal, Self

from pydantic import ByteSize, Field, SecretStr, model_validator

from cortex_stream.settings.section import Section
from topics.names import RETRIES


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
    replay: int = Field(
        128,
        ge=1,
        description="Work items: a few batches. Replays have time, and to begin them costs live requests theirs.",
        examples=[1000],
    )
    lane_bytes: ByteSize = Field(
        ByteSize(256 << 20),
        ge=1 << 20,
        description="Memory that the work items of one lane may hold until their outcomes are"
        " durable: about 14 KB for one short text, 0.8 MB for 256.",
        examples=["64MiB"],
    )
    total_bytes: ByteSize = Field(
        ByteSize(512 << 20),
        ge=16 << 20,
        description="Memory that the work items of all lanes may hold together. Half is kept for"
        " them in equal parts, so that no lane waits for another's.",
        examples=["128MiB"],
    )


class MemorySettings(Section):
    """When memory is short: shed the lowest lanes first, stop all intake before the limit."""

    limit: ByteSize = Field(
        ByteSize(0),
        ge=0,
        description="Memory this process may use; 0: no limit of its own. The container's limit"
        " counts in any case; where there is neither, the machine's memory does.",
        examples=["2GiB"],
    )
    warn_ratio: float = Field(
        0.85, gt=0, lt=1, description="From this share on, lanes are shed.", examples=[0.8]
    )
    critical_ratio: float = Field(
        0.95, gt=0, lt=1, description="From this share on, nothing is taken in.", examples=[0.9]
    )
    reserve: ByteSize = Field(
        ByteSize(256 << 20),
        ge=0,
        description="Nothing is taken in while less is left; at most a tenth of the limit.",
        examples=["64MiB"],
    )
    recovery_s: float = Field(
        30.0,
        gt=0,
        description="Calm seconds before shed lanes come back; also for how long a worker may take"
        " nothing for want of memory, with no work left, before it ends to be started again.",
        examples=[60.0],
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.warn_ratio > self.critical_ratio:
            raise ValueError(
                f"warn_ratio {self.warn_ratio:g} is above critical_ratio {self.critical_ratio:g}"
            )
        return self


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
    runners: int = Field(
        0,
        ge=0,
        description="CPU runners per model, one thread each; 0: one per usable core.",
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
        description="Padded tokens (rows x longest) of one CPU batch; five eighths of it while"
        " requests come whose tenant had none waiting.",
        examples=[512],
    )
    run_timeout_s: float = Field(
        30.0, gt=0, description="A model run that takes longer is stuck.", examples=[60.0]
    )
    attempts: int = Field(
        3,
        ge=1,
        description="Attempts one after the other, before a retryable failure waits for a retry.",
        examples=[1],
    )


class RetriesSettings(Section):
    """How a request that failed for no fault of its own is tried again after a while."""

    most: int = Field(
        RETRIES, ge=0, le=RETRIES, description="Retries of one request; 0: none.", examples=[1]
    )
    first_delay_s: float = Field(
        10.0, gt=0, description="Before the first. The same for all workers.", examples=[30.0]
    )
    factor: float = Field(
        1.5, ge=1, description="Each later one waits so many times longer.", examples=[2.0]
    )
    within_s: float = Field(
        300.0, gt=0, description="No retry is due later after the first failure.", examples=[60.0]
    )
    share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Retries, those at once too, by requests, at most; what fails beyond it is a"
        " dead letter.",
        examples=[0.1],
    )


class BatchingSettings(Section):
    """What a batch may cost an answer."""

    invariance: Literal["fast", "strict"] = Field(
        "fast",
        description="strict: a model whose answers depend on their company runs one text at a time,"
        " so that none does; fast: it runs in batches, and its outcomes say so.",
        examples=["strict"],
    )


class DedupeSettings(Section):
    """How the reuse of a request id for another payload is noticed. Needs REDIS_URL."""

    window_s: float = Field(
        3600.0,
        ge=0,
        le=7 * 86400,
        description="A request id is remembered for so long after its first use; 0: not at all."
        " About 150 bytes of Redis each.",
        examples=[600.0],
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
        None,
        description="Demanded (Bearer) unless the host is loopback; what changes something demands it"
        " everywhere.",
        examples=["…"],
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
