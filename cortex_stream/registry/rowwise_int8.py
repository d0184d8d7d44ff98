"""Rewrites an encoder's matrix products to int8, with one activation scale per token.

The usual dynamic quantisation has one scale for the whole activation tensor, so a text's vector
depends on the other texts of its batch (cosine alone to batch of 8: 0.98). Here the scale of a token
comes from that token alone: the answer is the same, bit for bit, in any company, which replays and
caches rely on. Weights get one symmetric scale per output column, large embedding tables one per
row. `docs/decisions/0010-answers-and-their-company.md` has the figures.

The same graph gives the same bytes on every machine: all arithmetic is elementwise in float32.
"""

import importlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cortex_stream.errors import ModelLoadFailed

_MICROSOFT: Final = "com.microsoft"
_TINY: Final = np.float32(1e-12)  # a column or token of zeros keeps a scale that can divide
_LEAST_OPSET: Final = 13  # the first whose QuantizeLinear takes a scale per row
_AXES_ARE_INPUTS_FROM_OPSET: Final = 18
_TABLE_ROWS: Final = 1024  # smaller tables (positions, token types) weigh less than a megabyte
_MIDDLE: Final = 128  # the uint8 that stands for zero
_LOW: Final = 24
"""The uint8 that stands for zero behind GELU, whose values are never below -0.17: most of the 256
steps then go to the positive side, where large values are."""
_GELU_LEAST: Final = 0.17


def quantise(model: Any, *, output: str) -> Any:
    """Return an `onnx.ModelProto` with int8 products that computes `output` alone; takes `model`.

    Raises:
        ModelLoadFailed: the graph has no product with constant weights.
    """
    onnx = importlib.import_module("onnx")
    opset = next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})
    if opset < _LEAST_OPSET:
        opset, model = _LEAST_OPSET, onnx.version_converter.convert_version(model, _LEAST_OPSET)
    _keep_only(model.graph, output)
    rewrite = _Rewrite(onnx, model.graph, opset=opset)
    if not rewrite.apply():
        raise ModelLoadFailed("quantising to int8: the graph has no MatMul with constant weights")
    if all(entry.domain != _MICROSOFT for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(_MICROSOFT, 1))
    # Who made the file, and notes to people: no part of what it computes, so not of its digest.
    for note in ("producer_name", "producer_version", "doc_string", "metadata_props"):
        model.ClearField(note)
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    return model


class _Rewrite:
    def __init__(self, onnx: Any, graph: Any, *, opset: int) -> None:
        self._onnx = onnx
        self._graph = graph
        self._opset = opset
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {name: node for node in graph.node for name in node.output}
        self._constants: set[str] = set()
        self._nodes: list[Any] = []
        self._quantised: dict[str, tuple[str, str, str]] = {}

    def apply(self) -> int:
        """Rewrite the graph in place; return how many products became int8."""
        products = 0
        for node in self._graph.node:
            weight = self._matrix(node)
            if node.op_type == "MatMul" and weight is not None:
                self._product(node, weight)
                products += 1
            elif node.op_type == "Gather" and weight is not None and len(weight) >= _TABLE_ROWS:
                self._table(node, weight)
            else:
                self._nodes.append(node)
        del self._graph.node[:], self._graph.value_info[:]
        self._graph.node.extend(self._nodes)
        _keep_only(self._graph, self._graph.output[0].name)
        return products

    def _matrix(self, node: Any) -> npt.NDArray[np.float32] | None:
        """Return the constant float matrix that `node` multiplies with or reads rows of."""
        place = {"MatMul": 1, "Gather": 0}.get(node.op_type)
        tensor = None if place is None else self._weights.get(node.input[place])
        float32 = self._onnx.TensorProto.FLOAT
        if tensor is None or len(tensor.dims) != 2 or tensor.data_type != float32:  # noqa: PLR2004
            return None
        if any(attribute.name == "axis" and attribute.i for attribute in node.attribute):
            return None  # it reads columns
        matrix: npt.NDArray[np.float32] = self._onnx.numpy_helper.to_array(tensor)
        return matrix

    def _table(self, node: Any, table: npt.NDArray[np.float32]) -> None:
        name, ids, rows = node.input[0], node.input[1], node.output[0]
        scale = _scale(table, axis=1)
        self._add(
            "Gather", [self._constant(f"{name}_int8", _int8(table, scale)), ids], f"{rows}_int8"
        )
        self._add("Cast", [f"{rows}_int8"], f"{rows}_unscaled", to=self._onnx.TensorProto.FLOAT)
        self._add("Gather", [self._constant(f"{name}_scale", scale), ids], f"{rows}_scale")
        self._add("Mul", [f"{rows}_unscaled", f"{rows}_scale"], rows)

    def _product(self, node: Any, weight: npt.NDArray[np.float32]) -> None:
        values, weight_name, product = node.input[0], node.input[1], node.output[0]
        scale = _scale(weight, axis=0)
        # Query, key and value read one input: it is quantised once.
        if values not in self._quantised:
            self._quantised[values] = self._quantise_rows(values, width=len(weight))
        quantised, row_scale, zero = self._quantised[values]
        # The row's scale is applied in a product of its own. ONNX Runtime would fuse
        # Add(Mul(Cast(MatMulInteger), Mul(row_scale, weight_scale)), bias) into one
        # MatMulIntegerToFloat, which scales the bias, too: silently wrong (cosine 0.62).
        self._add(
            "MatMulIntegerToFloat",
            [
                quantised,
                self._constant(f"{weight_name}_int8", _int8(weight, scale)),
                self._constant("int8_one", np.float32(1)),
                self._constant(f"{weight_name}_scale", scale[0]),
                zero,
            ],
            f"{product}_by_column",
            domain=_MICROSOFT,
        )
        self._add("Mul", [f"{product}_by_column", row_scale], product)

    def _quantise_rows(self, values: str, *, width: int) -> tuple[str, str, str]:
        """Add what turns `values`, shape (…, width), into uint8; return it, its scale, its zero."""

        def step(operator: str, inputs: list[str], result: str, **attributes: Any) -> str:
            return self._add(operator, inputs, f"{values}_int8_{result}", **attributes)

        def extreme(operator: str, reach: float) -> str:
            """Add the scale with which a row's extreme comes to lie on the last of its steps."""
            if self._opset < _AXES_ARE_INPUTS_FROM_OPSET:
                found = step(operator, [values], operator, axes=[-1], keepdims=1)
            else:
                found = step(operator, [values, last], operator, keepdims=1)
            factor = self._constant(f"int8_per_{reach:g}", np.float32(1 / reach))
            return step("Mul", [found, factor], f"{operator}_scale")

        last = self._constant("int8_last_axis", np.array([-1], np.int64))
        if self._behind_gelu(values):
            middle = _LOW
            least = self._constant("int8_gelu_scale", np.float32(_GELU_LEAST / _LOW))
            scale = step("Max", [extreme("ReduceMax", 255 - middle), least], "scale")
        else:
            middle = _MIDDLE
            extremes = [extreme("ReduceMax", 255 - middle), extreme("ReduceMin", -middle)]
            scale = step("Max", [*extremes, self._constant("int8_tiny", _TINY)], "scale")
        zero = self._constant(f"int8_zero_{middle}", np.uint8(middle))
        flat_scale = step("Reshape", [scale, last], "flat_scale")
        zeros = step("Expand", [zero, step("Shape", [flat_scale], "count")], "zeros")
        rows = self._constant(f"int8_rows_{width}", np.array([-1, width], np.int64))
        flat = step("Reshape", [values, rows], "flat")
        flat_uint8 = step("QuantizeLinear", [flat, flat_scale, zeros], "flat_uint8", axis=0)
        uint8 = step("Reshape", [flat_uint8, step("Shape", [values], "shape")], "uint8")
        return uint8, scale, zero

    def _behind_gelu(self, name: str) -> bool:
        """Tell whether `name` is x * Phi(x), which older exports write as x * (erf(…) + 1) * 0.5."""
        node = self._producers.get(name)
        return node is not None and (node.op_type == "Gelu" or self._near_erf(name, steps=4))

    def _near_erf(self, name: str, *, steps: int) -> bool:
        node = self._producers.get(name)
        if node is None or not steps or node.op_type not in {"Erf", "Mul", "Add"}:
            return False
        return node.op_type == "Erf" or any(
            self._near_erf(each, steps=steps - 1) for each in node.input
        )

    def _add(self, operator: str, inputs: list[str], result: str, **attributes: Any) -> str:
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, [result], **attributes))
        return result

    def _constant(self, name: str, value: Any) -> str:
        if name not in self._constants:
            self._constants.add(name)
            tensor = self._onnx.numpy_helper.from_array(np.asarray(value), name)
            self._graph.initializer.append(tensor)
        return name


def _scale(matrix: npt.NDArray[np.float32], *, axis: int) -> npt.NDArray[np.float32]:
    largest = np.maximum(np.abs(matrix).max(axis, keepdims=True), _TINY)
    scale: npt.NDArray[np.float32] = largest / np.float32(127)
    return scale


def _int8(matrix: npt.NDArray[np.float32], scale: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    return np.clip(np.round(matrix / scale), -127, 127).astype(np.int8)


def _keep_only(graph: Any, output: str) -> None:
    """Drop the other outputs, and every node and constant that `output` does not need."""
    outputs = [value for value in graph.output if value.name == output]
    needed, nodes = {output}, []
    for node in reversed(graph.node):  # producers come before consumers
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.output[:], graph.node[:], graph.initializer[:]
    graph.output.extend(outputs)
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(constants)
