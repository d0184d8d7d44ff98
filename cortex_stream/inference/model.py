"""A model version, loaded and proven: what the engine and the scheduler work with."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, Protocol

import structlog

from cortex_stream.errors import DeviceFailed, InferenceFailed, InvalidOutput, ModelLoadFailed
from cortex_stream.inference.onnx_runner import OnnxRunner
from cortex_stream.inference.runner import Runner
from cortex_stream.inference.session import Provider, open_session, usable_cores
from cortex_stream.inference.tokenizer import TextTokenizer, TokenRow
from cortex_stream.settings.sections import InferenceSettings

Task = Literal["embedding", "sequence-classification"]
_PROBE: Final = "Is this model sound? "
_SHORTEST_TOKENS: Final = 8

_log = structlog.stdlib.get_logger(__name__)


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
    @property
    def is_batch_invariant(self) -> bool: ...


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
        standby: the same version on the CPU, for the time in which the device of `runners` is
            lost; None where they are on the CPU themselves.
        batch_invariant: whether an answer is the same whatever other texts run beside it.
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
    standby: "LoadedModel | None" = None
    batch_invariant: bool = True

    @property
    def reference(self) -> str:
        """The version as requests name it: `name@version`."""
        return f"{self.name}@{self.version}"

    def close(self) -> None:
        """Give memory back. Nothing may run any more."""
        for runner in self.runners:
            runner.close()
        if self.standby is not None:
            self.standby.close()


def load_model(
    source: ModelSource, settings: InferenceSettings, *, gpu_batch_rows: int = 32
) -> LoadedModel:
    """Open a verified version, warm it up, and prove that it gives finite numbers of its shape.

    Blocks for about a second; call it in a thread. On a GPU the version is opened on the CPU, too,
    so that nothing can fail any more when the GPU does.

    Args:
        source: where its files are.
        settings: on which device, and how large its batches are on a CPU.
        gpu_batch_rows: rows of the largest batch on a GPU.

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
    if session.provider == "cpu":
        shapes = warm_up_shapes(
            tokenizer.max_tokens, max_rows=settings.batch_rows, max_tokens=settings.batch_tokens
        )
    else:
        shapes = warm_up_shapes(tokenizer.max_tokens, max_rows=gpu_batch_rows, max_tokens=None)
    _prove(runners[0], tokenizer, shapes)
    loaded = LoadedModel(
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
        batch_invariant=manifest.is_batch_invariant,
    )
    return loaded if loaded.provider == "cpu" else with_standby(loaded, source, settings)


def with_standby(
    loaded: LoadedModel, source: ModelSource, settings: InferenceSettings
) -> LoadedModel:
    """Return `loaded` with the same version on the CPU beside it, if that can be opened."""
    try:
        standby = load_model(source, settings.model_copy(update={"provider": "cpu"}))
    except ModelLoadFailed as error:  # such as a graph with operators for a GPU alone
        _log.warning("inference.no_standby", model=loaded.reference, error=str(error))
        return loaded
    return replace(loaded, standby=standby)


def warm_up_shapes(
    longest_tokens: int, *, max_rows: int, max_tokens: int | None
) -> list[tuple[int, int]]:
    """Return the largest batch of each length bucket, as rows and tokens per row.

    The lengths double: few runs, and every buffer that a batch can need is asked for once.
    (Measured with int8 MiniLM on a CPU: a shape's first run then costs what its later ones do,
    0.98-1.01 times, and the process is as large after it as with every multiple of 8 warmed up,
    150 MB. A GPU loads its kernels at the first run of a shape's kind, so there it pays.)
    """
    lengths = [longest_tokens]
    tokens = _SHORTEST_TOKENS
    while tokens < longest_tokens:
        lengths.insert(-1, tokens)
        tokens *= 2
    room = max_tokens or max_rows * longest_tokens
    return [(max(1, min(max_rows, room // tokens)), tokens) for tokens in lengths]


def _runner_count(provider: Provider, settings: InferenceSettings) -> int:
    if provider == "cuda":
        return 1  # a GPU takes large batches one after the other
    return settings.runners or usable_cores()


def _prove(runner: Runner, tokenizer: TextTokenizer, shapes: list[tuple[int, int]]) -> None:
    """Run a batch of each shape, so that no request pays for the first allocation."""
    [long] = tokenizer.encode([_PROBE * tokenizer.max_tokens])
    try:
        runner.probe()
        for rows, tokens in shapes:
            runner.run([TokenRow(long.ids[:tokens])] * rows)
    except DeviceFailed as error:
        raise ModelLoadFailed(
            f"loading {runner.model}: its first run failed: {error}",
            repair="look at nvidia-smi; lower MAX_BATCH_SIZE, or set CORTEX_INFERENCE__PROVIDER=cpu",
        ) from error
    except (InferenceFailed, InvalidOutput) as error:
        raise ModelLoadFailed(
            f"loading {runner.model}: its first run failed: {error}",
            repair="get the version again with `cortex-stream models pull`, or export it again",
        ) from error
