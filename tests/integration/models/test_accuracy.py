"""Our vectors against those of the original: float32 weights, torch, one text at a time."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cortex_stream.inference.model import LoadedModel, load_model
from cortex_stream.inference.tensors import FloatRows
from cortex_stream.inference.zero_shot import zero_shot_scores
from cortex_stream.registry.store import ModelVersion
from cortex_stream.settings.sections import InferenceSettings

pytestmark = pytest.mark.integration
Pulled = Callable[[str], ModelVersion]


@dataclass(frozen=True)
class Reference:
    texts: list[str]
    tokens: list[int]
    truncated: list[bool]
    vectors: FloatRows


@pytest.fixture(scope="module")
def reference() -> Reference:
    path = Path(__file__).parents[2] / "fixtures" / "minilm_reference.json"
    items = json.loads(path.read_text(encoding="utf-8"))["items"]
    vectors = [np.frombuffer(base64.b64decode(item["vector"]), "<f4") for item in items]
    return Reference(
        texts=[item["text"] for item in items],
        tokens=[item["tokens_used"] for item in items],
        truncated=[item["tokens"] > item["tokens_used"] for item in items],
        vectors=np.array(vectors, np.float32),
    )


def load(version: ModelVersion) -> LoadedModel:
    return load_model(version, InferenceSettings(runners=1, provider="cpu"))


def cosines(model: LoadedModel, reference: Reference, *, rows: int, seed: int = 0) -> FloatRows:
    """Run the texts in random company, `rows` at a time; return each one's cosine to the original."""
    order = np.random.default_rng(seed).permutation(len(reference.texts))
    tokens = model.tokenizer.encode(reference.texts)
    found = np.empty(len(order), np.float32)
    for start in range(0, len(order), rows):
        batch = order[start : start + rows]
        vectors = model.runners[0].run([tokens[index] for index in batch])
        found[batch] = np.einsum("rd,rd->r", vectors, reference.vectors[batch])
    return found


@pytest.mark.parametrize("name", ["minilm", "minilm-q", "minilm-fp32"])
def test_a_text_has_the_tokens_of_the_original(
    pulled_models: Pulled, reference: Reference, name: str
) -> None:
    rows = load(pulled_models(name)).tokenizer.encode(reference.texts)

    assert [row.tokens for row in rows] == reference.tokens
    assert [row.truncated for row in rows] == reference.truncated


def test_float_vectors_are_those_of_the_original_in_any_batch(
    pulled_models: Pulled, reference: Reference
) -> None:
    model = load(pulled_models("minilm-fp32"))

    found = [cosines(model, reference, rows=rows) for rows in (1, 2, 8, 24)]

    assert np.min(found) >= 0.9999


def test_minilm_multiplies_integers_and_minilm_fp32_does_not(pulled_models: Pulled) -> None:
    quantised, floating = (
        b"MatMulInteger" in pulled_models(name).onnx_path.read_bytes()
        for name in ("minilm", "minilm-fp32")
    )

    assert quantised
    assert not floating


@pytest.mark.parametrize("name", ["minilm", "minilm-q"])
def test_int8_vectors_are_near_those_of_the_original(
    pulled_models: Pulled, reference: Reference, name: str
) -> None:
    model = load(pulled_models(name))

    alone = cosines(model, reference, rows=1)
    together = [cosines(model, reference, rows=r, seed=r) for r in (2, 3, 4, 5, 6, 7, 8)]

    assert alone.min() >= 0.97
    assert np.min(together) >= 0.94
    assert np.mean(together) >= 0.98


@pytest.mark.parametrize("name", ["minilm", "bge-small", "e5-small"])
def test_a_question_is_nearest_to_the_passage_that_answers_it(
    pulled_models: Pulled, name: str
) -> None:
    model = load(pulled_models(name))
    passages = [
        "Paris is the capital and most populous city of France.",
        "The mitochondrion releases the energy that a cell lives on.",
        "A mutex lets only one thread into a section of code at a time.",
    ]
    questions = ["Which city do the French govern from?", "power plant of cells", "thread locking"]

    def embed(texts: list[str], role: str) -> FloatRows:
        rows = model.tokenizer.encode(texts, prefix=model.prefixes.get(role, ""))
        return model.runners[0].run(rows)

    likeness = embed(questions, "query") @ embed(passages, "passage").T

    assert likeness.argmax(axis=1).tolist() == [0, 1, 2]


def test_labels_that_no_model_was_trained_for_sort_texts(pulled_models: Pulled) -> None:
    model = load(pulled_models("minilm"))
    labels = ["sports", "cooking", "finance"]
    texts = ["The striker scored twice in the final.", "Simmer the onions in butter."]

    def embed(texts: list[str]) -> FloatRows:
        return model.runners[0].run(model.tokenizer.encode(texts))

    ranked = zero_shot_scores(embed(texts), embed(labels), labels, multi_label=False)

    assert [text[0][0] for text in ranked] == ["sports", "cooking"]
