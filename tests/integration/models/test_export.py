"""Exports of tiny models with random weights, made here, against torch. Needs the extra `export`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cortex_stream.errors import OperatorError
from cortex_stream.inference.model import LoadedModel, load_model
from cortex_stream.inference.tensors import FloatRows, normalise
from cortex_stream.registry.export import export
from cortex_stream.registry.proof import Precision
from cortex_stream.registry.store import ModelVersion
from cortex_stream.settings.sections import InferenceSettings, ModelsSettings

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    # Torch and its exporter warn of their own next release.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
torch = pytest.importorskip("torch", reason="the extra `export` is not installed")
transformers = pytest.importorskip("transformers", reason="the extra `export` is not installed")

TEXTS = ["hello world", "a longer text of several words, so that batches are padded", "x"]
LABELS = ("spam", "ham", "unsure")
Made = Callable[[str, Precision], ModelVersion]


def save(folder: Path, kind: str) -> Any:
    """Save a random BERT as `save_pretrained` does, and return it."""
    torch.manual_seed(11)
    letters = [chr(code) for code in range(33, 127)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=48)
    tokenizer.save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,  # large weights, so that a wrong graph cannot look right
        id2label=dict(enumerate(LABELS)),
    )
    made = {
        "embedding": transformers.BertModel,
        "classification": transformers.BertForSequenceClassification,
    }[kind](config).eval()
    made.save_pretrained(folder)
    return made


def by_torch(model: Any, folder: Path, kind: str) -> FloatRows:
    """Return what torch says about each text alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = []
    with torch.no_grad():
        for text in TEXTS:
            answer = model(**tokenizer(text, return_tensors="pt", truncation=True))
            alone = answer.last_hidden_state[0].mean(0) if kind == "embedding" else answer.logits[0]
            rows.append(alone.numpy())
    numbers = np.array(rows, np.float32)
    return normalise(numbers) if kind == "embedding" else numbers


def ours(version: ModelVersion) -> tuple[LoadedModel, FloatRows, FloatRows]:
    """Return the model, its numbers for each text alone, and for all together."""
    model = load_model(version, InferenceSettings(runners=1, provider="cpu"))
    rows = model.tokenizer.encode(TEXTS)
    alone = np.vstack([model.runners[0].run([row]) for row in rows])
    return model, alone, model.runners[0].run(rows)


def export_to(tmp_path: Path, precision: Precision) -> ModelVersion:
    return export(
        tmp_path / "source",
        ModelsSettings(folder=tmp_path / "models"),
        name="mine",
        version="7",
        precision=precision,
        licence="MIT",
    )


@pytest.mark.parametrize("kind", ["embedding", "classification"])
@pytest.mark.parametrize(("precision", "distance"), [("fp32", 2e-5), ("fp16", 2e-2), ("int8", 0.2)])
def test_an_exported_model_says_what_torch_says(
    tmp_path: Path, kind: str, precision: Precision, distance: float
) -> None:
    original = save(tmp_path / "source", kind)

    model, alone, together = ours(export_to(tmp_path, precision))

    expected = by_torch(original, tmp_path / "source", kind)
    scale = np.abs(expected).max()
    assert np.abs(alone - expected).max() <= distance * scale
    assert np.abs(together - expected).max() <= distance * scale
    assert model.max_tokens == 48
    assert model.labels == (LABELS if kind == "classification" else ())


def test_int8_answers_are_bit_equal_in_any_company(tmp_path: Path) -> None:
    save(tmp_path / "source", "embedding")

    _, alone, together = ours(export_to(tmp_path, "int8"))

    assert np.array_equal(alone, together)


def test_a_version_never_changes(tmp_path: Path) -> None:
    save(tmp_path / "source", "embedding")
    export_to(tmp_path, "fp32")

    with pytest.raises(OperatorError, match="versions never change"):
        export_to(tmp_path, "int8")


def test_weights_in_a_pickle_are_refused(tmp_path: Path) -> None:
    model = save(tmp_path / "source", "embedding")
    (tmp_path / "source" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "source" / "pytorch_model.bin")

    with pytest.raises(OperatorError, match="safetensors"):
        export_to(tmp_path, "fp32")
    assert not (tmp_path / "models" / "mine").exists()
