"""Turns a local Hugging Face folder into a model version of ours. Needs the extra `export`.

Nothing of the folder is executed: weights are read from safetensors, never from pickles, and code
in the folder is ignored. What was written is compared with what torch says before it is installed.
"""

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cortex_stream.errors import OperatorError
from cortex_stream.registry.install import alone, install
from cortex_stream.registry.proof import TEXTS, Batch, Precision, prove
from cortex_stream.registry.rowwise_int8 import quantise
from cortex_stream.registry.store import ModelStore, ModelVersion
from cortex_stream.settings.sections import ModelsSettings

_OPSET: Final = 18  # the lowest that torch's exporter writes without converting down


@dataclass(frozen=True, slots=True)
class _Source:
    """What the folder says: the torch module, its texts' tokens, and the manifest's fields."""

    module: Any
    ids: Any
    mask: Any
    tokenizer_json: str
    facts: Mapping[str, object]


def export(
    folder: Path,
    settings: ModelsSettings,
    *,
    name: str,
    version: str,
    precision: Precision,
    licence: str,
) -> ModelVersion:
    """Export the model of `folder` and install it. Blocks for seconds to minutes.

    Args:
        folder: `config.json`, `model.safetensors` and tokenizer files; the settings of
            sentence-transformers are followed where they are.
        settings: where to install.
        name: of the model.
        version: of the model; versions never change, so it must be new.
        precision: int8 is for CPUs, fp16 for GPUs.
        licence: of the weights, as SPDX identifier.

    Raises:
        OperatorError: the extra is missing, the folder is no such model, or the version exists.
        ModelLoadFailed: the exported graph does not compute what torch computes.
    """
    with alone(settings.folder):
        if f"{name}@{version}" in ModelStore(settings).references():
            raise OperatorError(
                f"exporting {name}@{version}: it is installed already, and versions never change",
                repair="choose another --version",
            )
        source = _read(folder)
        facts = {
            "name": name,
            "version": version,
            "precision": precision,
            "licence": licence,
            "source": folder.resolve().name,
            "batch_invariant": True,  # int8 has a scale per token, and that is proven below
            **source.facts,
        }

        def fill(target: Path) -> None:
            (target / "tokenizer.json").write_text(source.tokenizer_json, encoding="utf-8")
            _write_graph(source, target / "model.onnx", precision, str(facts["output"]))

        return install(settings, facts, fill)


def _read(folder: Path) -> _Source:
    torch, transformers = _needed("torch"), _needed("transformers")
    if not (folder / "config.json").is_file():
        raise OperatorError(
            f"exporting {folder}: it has no config.json",
            repair="name a local Hugging Face folder, as `save_pretrained` writes it",
        )
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **local)
        classifies = any("ForSequenceClassification" in a for a in config.architectures or ())
        kind = (
            transformers.AutoModelForSequenceClassification
            if classifies
            else transformers.AutoModel
        )
        # Eager attention: fused attention exports to operators that depend on torch's release.
        model = kind.from_pretrained(
            folder, use_safetensors=True, attn_implementation="eager", dtype=torch.float32, **local
        ).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, use_fast=True, **local)
    except (OSError, ValueError, KeyError) as error:
        raise OperatorError(f"exporting {folder}: {error}") from error
    max_tokens = _max_tokens(folder, config, tokenizer)
    facts = _labels(config) if classifies else _embedding(folder, config)
    output = str(facts["output"])

    def forward(self: Any, input_ids: Any, attention_mask: Any) -> Any:
        return getattr(self.model(input_ids=input_ids, attention_mask=attention_mask), output)

    module = type("OneOutput", (torch.nn.Module,), {"forward": forward})()
    module.model = model
    batch = tokenizer(
        list(TEXTS), padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
    )
    return _Source(
        module=module.eval(),
        ids=batch["input_ids"],
        mask=batch["attention_mask"],
        tokenizer_json=tokenizer.backend_tokenizer.to_str(),
        facts={
            **facts,
            "file": "model.onnx",
            "tokenizer": "tokenizer.json",
            "max_tokens": max_tokens,
        },
    )


def _labels(config: Any) -> dict[str, object]:
    labels = [str(config.id2label[index]) for index in range(config.num_labels)]
    return {"task": "sequence-classification", "output": "logits", "labels": labels}


def _embedding(folder: Path, config: Any) -> dict[str, object]:
    """Follow the files of sentence-transformers; without them: mean, length one."""
    pooling = _json(folder / "1_Pooling" / "config.json")
    modules = _json(folder / "modules.json")
    prompts = _json(folder / "config_sentence_transformers.json").get("prompts", {})
    named = {"query": prompts.get("query"), "passage": prompts.get("passage")}
    return {
        "task": "embedding",
        "output": "last_hidden_state",
        "pooling": "cls" if pooling.get("pooling_mode_cls_token") else "mean",
        "normalise": not modules or any("Normalize" in str(module) for module in modules),
        "dims": int(config.hidden_size),
        "prefixes": {role: prompt for role, prompt in named.items() if prompt},
    }


def _max_tokens(folder: Path, config: Any, tokenizer: Any) -> int:
    """Return the least of what training, positions and tokenizer allow."""
    positions = int(getattr(config, "max_position_embeddings", 512))
    if config.model_type in {"roberta", "xlm-roberta", "camembert", "mpnet"}:
        positions -= 2  # their positions start behind the padding's
    trained = _json(folder / "sentence_bert_config.json").get("max_seq_length") or positions
    return int(min(positions, trained, tokenizer.model_max_length))


def _write_graph(source: _Source, path: Path, precision: Precision, output: str) -> None:
    torch, onnx = _needed("torch"), _needed("onnx")
    _needed("onnxscript")
    with torch.no_grad():
        wanted = source.module(source.ids, source.mask).numpy()
        module = source.module.half() if precision == "fp16" else source.module
        free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        torch.onnx.export(
            module,
            (source.ids, source.mask),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=[output],
            dynamic_shapes={"input_ids": free, "attention_mask": free},
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if precision == "int8":
        model = quantise(onnx.load(str(path)), output=output)
        path.write_bytes(model.SerializeToString(deterministic=True))
    batch = Batch(source.ids.numpy(), source.mask.numpy())
    lengths = batch.mask.sum(axis=1)
    hidden = wanted.ndim == 3  # noqa: PLR2004 (rows, tokens, dims; logits have no tokens)
    rows = [row[:length] if hidden else row for row, length in zip(wanted, lengths, strict=True)]
    prove(path, batch, rows, output=output, precision=precision)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _needed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise OperatorError(
            f"exporting a model: Python's {module} is not installed",
            repair="pip install 'cortex-stream[export]' in an environment of its own",
        ) from error
