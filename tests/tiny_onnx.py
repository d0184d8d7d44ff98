"""ONNX files of a few hundred bytes, written field by field: no package is needed, any lie is possible.

The model gives each token the row of a table: hidden states `(rows, tokens, dims)`.
"""

import hashlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cortex_stream.registry.install import install
from cortex_stream.registry.manifest import MANIFEST_FILE, read_manifest
from cortex_stream.registry.store import ModelVersion
from cortex_stream.settings.sections import ModelsSettings
from cortex_stream.testing.stub_runner import stub_tokenizer

DIMS: Final = 4
TOKENS: Final = 300  # more than the stub tokenizer knows
_FLOAT, _INT64, _HALF = 1, 7, 10


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, *parts: bytes | str) -> bytes:
    content = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return varint(field << 3 | 2) + varint(len(content)) + content


def value_info(field: int, name: str, element: int, axes: list[str | int]) -> bytes:
    shape = [
        message(1, number(1, axis) if isinstance(axis, int) else message(2, axis)) for axis in axes
    ]
    tensor = message(1, number(1, element), message(2, *shape))
    return message(field, message(1, name), message(2, tensor))


def node(operator: str, inputs: list[str], outputs: list[str]) -> bytes:
    names = [message(1, each) for each in inputs] + [message(2, each) for each in outputs]
    return message(1, *names, message(4, operator))


def external(name: str, location: str) -> bytes:
    """Return a tensor whose numbers are said to be in another file."""
    entry = message(13, message(1, "location"), message(2, location))
    dims = number(1, TOKENS) + number(1, DIMS)
    return message(5, dims, number(2, _FLOAT), message(8, name), entry, number(14, 1))


def table(numbers: npt.NDArray[np.float32]) -> bytes:
    dims = b"".join(number(1, size) for size in numbers.shape)
    return message(5, dims, number(2, _FLOAT), message(8, "table"), message(9, numbers.tobytes()))


def some_numbers() -> npt.NDArray[np.float32]:
    return np.random.default_rng(7).standard_normal((TOKENS, DIMS), np.float32)


def tiny_onnx(
    *,
    tensor: bytes | None = None,
    opset: int = 17,
    more_nodes: bytes = b"",
    inputs: tuple[str, ...] = ("input_ids", "attention_mask"),
    input_type: int = _INT64,
    output_type: int = _FLOAT,
) -> bytes:
    graph = message(
        7,
        node("Gather", ["table", "input_ids"], ["last_hidden_state"]),
        more_nodes,
        message(2, "tiny"),
        table(some_numbers()) if tensor is None else tensor,
        *(value_info(11, name, input_type, ["rows", "tokens"]) for name in inputs),
        value_info(12, "last_hidden_state", output_type, ["rows", "tokens", DIMS]),
    )
    return number(1, 8) + graph + message(8, number(2, opset))


def half_precision_onnx() -> bytes:
    """Return the same model in float16, as GPUs take it."""
    numbers = some_numbers().astype(np.float16)
    dims = b"".join(number(1, size) for size in numbers.shape)
    tensor = message(5, dims, number(2, _HALF), message(8, "table"), message(9, numbers.tobytes()))
    return tiny_onnx(tensor=tensor, output_type=_HALF)


def tiny_classifier() -> bytes:
    """Return a model whose logits are the largest numbers of a text's tokens: `(rows, DIMS)`."""
    axes = message(5, message(1, "axes"), number(8, 1), number(20, _INT64))
    keepdims = message(5, message(1, "keepdims"), number(3, 0), number(20, 2))
    reduce = message(
        1, message(1, "hidden"), message(2, "logits"), message(4, "ReduceMax"), axes, keepdims
    )
    graph = message(
        7,
        node("Gather", ["table", "input_ids"], ["hidden"]),
        reduce,
        message(2, "tiny"),
        table(some_numbers()),
        value_info(11, "input_ids", _INT64, ["rows", "tokens"]),
        value_info(12, "logits", _FLOAT, ["rows", DIMS]),
    )
    return number(1, 8) + graph + message(8, number(2, 17))


def tiny_facts(name: str = "tiny", version: str = "1", **changed: object) -> dict[str, object]:
    return {
        "name": name,
        "version": version,
        "task": "embedding",
        "precision": "fp32",
        "licence": "Apache-2.0",
        "source": "made by a test",
        "file": "model.onnx",
        "tokenizer": "tokenizer.json",
        "output": "last_hidden_state",
        "pooling": "mean",
        "normalise": True,
        "dims": DIMS,
        "max_tokens": 32,
        **changed,
    }


def install_tiny(folder: Path, onnx: bytes | None = None, **changed: Any) -> ModelVersion:
    """Install a sealed version into a folder of models: its digest is right, whatever it holds."""

    def fill(target: Path) -> None:
        (target / "model.onnx").write_bytes(tiny_onnx() if onnx is None else onnx)
        tokenizer = stub_tokenizer()._tokenizer
        (target / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")

    return install(ModelsSettings(folder=folder), tiny_facts(**changed), fill)


def reseal(folder: Path) -> None:
    """Make the manifest agree with what the folder holds now, as an attacker would."""
    manifest = read_manifest(folder)
    names = [path.name for path in folder.iterdir() if path.name != MANIFEST_FILE]
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    manifest.model_copy(update={"files": files}).sealed().write(folder)
