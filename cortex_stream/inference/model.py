"""A model version, loaded and proven: what the engine and the scheduler work with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from cortex_stream.errors import InferenceFailed, InvalidOutput, ModelLoadFailed
from cortex_stream.inference.onnx_runner import OnnxRunner
from cortex_stream.inference.runner import Runner
from cortex_stream.inference.session import Provider, open_session, usable_cores
from cortex_stream.inference.tokenizer import TextTokenizer, TokenRow
from cortex_stream.settings.sections import InferenceSettings

Task = Literal["embedding", "sequence-classification"]
_PROBE: Final = "Is this model sound? "


class ModelManifest(Protocol):
    """What a version says about itself; `registry.manifest.Manifest` is one, and explains."""

    # ruff: noqa: D102 (one line each, and the manifest documents its fields)
    @property
    def task(self) -> Task: ...
    @property
    def output(self) -> str: ...
    @property
    def pooling(self) -> Literal["mean", "cls"] | None: ...
    @property
    def normalise(self) -> bool: ...
    @property
    def dims(self) -> int | None: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def prefixes(self) -> Mapping[str, str]: ...


class ModelSource(Protocol):
    """A version that may be loaded; `registry.store.ModelVersion` is one."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def onnx_path(self) -> Path: ...
    @property
    def tokenizer_path(self) -> Path: ...
    @property
    def manifest(self) -> ModelManifest: ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One version in memory, warm.

    Attributes:
        digest: `sha256:` and 64 hex digits, over every file of the version's folder.
        dims: numbers per vector; None for a classification model.
        labels: of a classification model, in the order of its logits; else empty.
        max_tokens: what one text may have; the rest is cut off.
        provider: where it runs, `cpu` or `cuda`.
        prefixes: put before a text by its role, `query` or `passage`; empty for most models.
        runners: run batches independently of each other, one thread each.
    """

    name: str
    version: str
    digest: str
    task: Task
    dims: int | None
    labels: tuple[str, ...]
    max_tokens: int
    provider: Provider
    prefixes: Mapping[str, str]
    tokenizer: TextTokenizer
    runners: tuple[Runner, ...]

    @property
    def reference(self) -> str:
        """The version as requests name it: `name@version`."""
        return f"{self.name}@{self.version}"

    def close(self) -> None:
        """Give memory back. Nothing may run any more."""
        for runner in self.runners:
            runner.close()


def load_model(source: ModelSource, settings: InferenceSettings) -> LoadedModel:
    """Open a verified version, warm it up, and prove that it gives finite numbers of its shape.

    Blocks for about a second; call it in a thread.

    Raises:
        ModelLoadFailed: the folder does not hold what its manifest says, or the demanded device
            is not there.
    """
    manifest, reference = source.manifest, f"{source.name}@{source.version}"
    tokenizer = TextTokenizer.from_file(source.tokenizer_path, max_tokens=manifest.max_tokens)
    session = open_session(source.onnx_path, wanted=settings.provider, output=manifest.output)
    runners = tuple(
        OnnxRunner(
            session,
            model=reference,
            width=manifest.dims or len(manifest.labels),
            pooling=manifest.pooling,
            normalise=manifest.normalise,
        )
        for _ in range(_runner_count(session.provider, settings))
    )
    _prove(runners[0], tokenizer, settings)
    return LoadedModel(
        name=source.name,
        version=source.version,
        digest=source.digest,
        task=manifest.task,
        dims=manifest.dims,
        labels=manifest.labels,
        max_tokens=manifest.max_tokens,
        provider=session.provider,
        prefixes=manifest.prefixes,
        tokenizer=tokenizer,
        runners=runners,
    )


def _runner_count(provider: Provider, settings: InferenceSettings) -> int:
    if provider == "cuda":
        return 1  # a GPU takes large batches one after the other
    return settings.sessions or usable_cores()


def _prove(runner: Runner, tokenizer: TextTokenizer, settings: InferenceSettings) -> None:
    """Run the widest and the longest batch, so that no request pays for the first allocation."""
    [long] = tokenizer.encode([_PROBE * tokenizer.max_tokens])
    short_tokens = max(1, min(settings.batch_tokens // settings.batch_rows, long.tokens))
    short = TokenRow(long.ids[:short_tokens])
    try:
        for batch in ([short] * settings.batch_rows, [long]):
            runner.run(batch)
    except (InferenceFailed, InvalidOutput) as error:
        raise ModelLoadFailed(
            f"loading {runner.model}: its first run failed: {error}",
            repair="get the version again with `cortex-stream models pull`, or export it again",
        ) from error
