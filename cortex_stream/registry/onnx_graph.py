"""Reads of an ONNX file what decides whether ONNX Runtime may open it, without opening it.

The file is walked as Protocol Buffers wire format (https://protobuf.dev/programming-guides/encoding)
along the message types of `onnx.proto`; nothing is decoded but names. Every occurrence of a field is
visited, as a reader merges repeated occurrences.

Bounds: the file's size is bounded by the caller; messages by `_MESSAGES`, nesting by `_DEPTH`.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cortex_stream.errors import ModelLoadFailed, UnsafeModel

_MESSAGES: Final = 2_000_000  # a 24-layer encoder has 50,000
_DEPTH: Final = 32  # of a graph in a node in a graph …; encoders have none
_NAME_BYTES: Final = 4096
_VARINT_BYTES: Final = 10

# message → field number → message within; the numbers are those of onnx.proto
_WITHIN: Final[dict[str, dict[int, str]]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "StringPair"},
}
_NAMES: Final = {("Node", 4): "operators", ("StringPair", 1): "keys", ("StringPair", 2): "values"}


@dataclass(slots=True)
class GraphFacts:
    """What was found.

    Attributes:
        operators: types of nodes, such as `MatMul`, of all graphs and functions.
        locations: files outside the ONNX file that tensors point to.
        nodes: count of nodes.
    """

    operators: set[str] = field(default_factory=set)
    locations: set[str] = field(default_factory=set)
    nodes: int = 0


def read_graph(path: Path) -> GraphFacts:
    """Walk the file.

    Raises:
        ModelLoadFailed: it is empty, cut off, or no ONNX.
        UnsafeModel: it is nested or large beyond every model that this release can serve.
    """
    if path.stat().st_size == 0:
        raise ModelLoadFailed(f"reading {path}: the file is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        walk = _Walk(data, path)
        walk.message("Model", 0, len(data), depth=0)
        if not walk.facts.nodes:
            raise ModelLoadFailed(f"reading {path}: it is not an ONNX model, or has no nodes")
        return walk.facts


class _Walk:
    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.facts = GraphFacts()
        self._data = data
        self._path = path
        self._messages = 0

    def message(self, kind: str, at: int, end: int, *, depth: int) -> None:
        self._messages += 1
        if self._messages > _MESSAGES or depth > _DEPTH:
            raise UnsafeModel(
                f"reading {self._path}: more than {_MESSAGES} parts or {_DEPTH} levels of nesting"
            )
        keys: set[str] = set()
        values: set[str] = set()
        for number, start, stop in self._fields(at, end):
            inner = _WITHIN.get(kind, {}).get(number)
            if inner is not None:
                self.message(inner, start, stop, depth=depth + 1)
            elif (kind, number) in _NAMES:
                target = {"keys": keys, "values": values, "operators": self.facts.operators}
                target[_NAMES[kind, number]].add(self._text(start, stop))
        if kind == "Node":
            self.facts.nodes += 1
        if "location" in keys:
            self.facts.locations |= values

    def _fields(self, at: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield number, start and end of every length-delimited field."""
        while at < end:
            tag, at = self._varint(at, end)
            match tag & 7:
                case 0:
                    _, at = self._varint(at, end)
                case 1:
                    at += 8
                case 5:
                    at += 4
                case 2:
                    size, at = self._varint(at, end)
                    if size > end - at:
                        raise self._broken(at)
                    yield tag >> 3, at, at + size
                    at += size
                case _:  # groups, which onnx.proto does not use
                    raise self._broken(at)
        if at != end:
            raise self._broken(at)

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for index in range(_VARINT_BYTES):
            if at + index >= end:
                break
            byte = self._data[at + index]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:  # noqa: PLR2004 (the bit that says there is more)
                return value, at + index + 1
        raise self._broken(at)

    def _text(self, start: int, stop: int) -> str:
        if stop - start > _NAME_BYTES:
            raise UnsafeModel(f"reading {self._path}: a name of {stop - start} bytes")
        return self._data[start:stop].decode("utf-8", "backslashreplace")

    def _broken(self, at: int) -> ModelLoadFailed:
        return ModelLoadFailed(
            f"reading {self._path}: not an ONNX model, or cut off (at byte {at})",
            repair="get the version again with `cortex-stream models pull`",
        )
