"""Graphs of a table and one product with a bias, as small as an encoder can be, made int8."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cortex_stream.errors import ModelLoadFailed
from cortex_stream.registry.proof import Batch, answers, prove
from cortex_stream.registry.rowwise_int8 import quantise

RNG = np.random.default_rng(3)
# Rows of very different size, as activations have; a bias that weighs as much as the product.
TABLE = RNG.standard_normal((1500, 16)) * np.exp(RNG.standard_normal((1500, 1)))
WEIGHT, BIAS = RNG.standard_normal((16, 12)), 10 * RNG.standard_normal(12)
BATCH = Batch(
    ids=np.array([[5, 900, 3, 1499], [7, 0, 0, 0]]), mask=np.array([[1, 1, 1, 1], [1, 0, 0, 0]])
)
OUTPUT = "last_hidden_state"
EMBED = helper.make_node("Gather", ["table", "input_ids"], ["x"])
ADD_BIAS = helper.make_node("Add", ["product", "bias"], [OUTPUT])


def graph(*nodes: Any, opset: int = 14, **constants: Any) -> Any:
    values = {"table": np.float32(TABLE), "bias": np.float32(BIAS), **constants}
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "tokens"])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", "tokens", 12])
            for name in (
                OUTPUT,
                *(name for node in nodes for name in node.output if name == "aside"),
            )
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def floats(*, opset: int = 14) -> Any:
    product = helper.make_node("MatMul", ["x", "weight"], ["product"])
    aside = helper.make_node("Tanh", [OUTPUT], ["aside"])
    return graph(EMBED, product, ADD_BIAS, aside, opset=opset, weight=np.float32(WEIGHT))


def saved(model: Any, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def wanted(tmp_path: Path) -> list[Any]:
    return answers(saved(floats(), tmp_path), BATCH, output=OUTPUT)


def check(model: Any, tmp_path: Path) -> None:
    expected = wanted(tmp_path)
    prove(saved(model, tmp_path), BATCH, expected, output=OUTPUT, precision="int8")


@pytest.mark.parametrize("opset", [11, 14, 18])
def test_an_exact_graph_is_as_its_original_says(tmp_path: Path, opset: int) -> None:
    made = quantise(floats(opset=opset), output=OUTPUT)

    check(made, tmp_path)
    [got, _] = answers(saved(made, tmp_path), BATCH, output=OUTPUT)
    assert np.abs(got - wanted(tmp_path)[0]).max() < 0.02 * np.abs(got).max()


def test_tables_and_products_are_int8_and_other_outputs_are_gone() -> None:
    made = quantise(floats(), output=OUTPUT).graph

    sizes = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in made.initializer}
    assert sizes["table_int8"] == (TensorProto.INT8, (1500, 16))
    assert sizes["weight_int8"] == (TensorProto.INT8, (16, 12))
    assert not {"table", "weight"} & sizes.keys()
    assert [value.name for value in made.output] == [OUTPUT]
    assert "Tanh" not in {node.op_type for node in made.node}


def test_the_same_graph_gives_the_same_bytes_whoever_wrote_it() -> None:
    named = floats()
    named.producer_name, named.producer_version, named.doc_string = "somebody", "7", "a note"

    made = [quantise(model, output=OUTPUT).SerializeToString() for model in (floats(), named)]

    assert made[0] == made[1]


def test_behind_gelu_most_steps_go_to_the_positive_side(tmp_path: Path) -> None:
    steps = [("Div", ["x", "root"], "d"), ("Erf", ["d"], "e"), ("Add", ["e", "one"], "f")]
    steps += [
        ("Mul", ["x", "f"], "g"),
        ("Mul", ["g", "half"], "h"),
        ("MatMul", ["h", "weight"], ""),
    ]
    nodes = [helper.make_node(kind, inputs, [name or "product"]) for kind, inputs, name in steps]
    constants: dict[str, Any] = {
        "root": np.float32(2**0.5),
        "one": np.float32(1),
        "half": np.float32(0.5),
    }
    model = graph(EMBED, *nodes, ADD_BIAS, weight=np.float32(WEIGHT), **constants)
    expected = answers(saved(model, tmp_path), BATCH, output=OUTPUT)

    made = quantise(model, output=OUTPUT)

    prove(saved(made, tmp_path), BATCH, expected, output=OUTPUT, precision="int8")
    assert "int8_zero_24" in {tensor.name for tensor in made.graph.initializer}


def test_a_graph_that_onnx_runtime_fuses_wrongly_is_refused(tmp_path: Path) -> None:
    # Right on paper; ONNX Runtime joins the last five into one operator, which scales the bias.
    scale = np.abs(WEIGHT).max(0) / 127
    steps = [
        ("Abs", ["x"], "abs"),
        ("ReduceMax", ["abs"], "largest"),
        ("Mul", ["largest", "per_127"], "row_scale"),
        ("Div", ["x", "row_scale"], "scaled"),
        ("Round", ["scaled"], "rounded"),
        ("Add", ["rounded", "middle"], "shifted"),
        ("Cast", ["shifted"], "uint8"),
        ("MatMulInteger", ["uint8", "weight_int8", "zero"], "sums"),
        ("Cast", ["sums"], "float_sums"),
        ("Mul", ["row_scale", "weight_scale"], "scales"),
        ("Mul", ["float_sums", "scales"], "product"),
    ]
    attributes: dict[str, dict[str, Any]] = {
        "largest": {"axes": [-1], "keepdims": 1},
        "uint8": {"to": TensorProto.UINT8},
        "float_sums": {"to": TensorProto.FLOAT},
    }
    naive = graph(
        EMBED,
        *(helper.make_node(k, i, [name], **attributes.get(name, {})) for k, i, name in steps),
        ADD_BIAS,
        per_127=np.float32(1 / 127),
        middle=np.float32(128),
        zero=np.uint8(128),
        weight_int8=np.int8(np.round(WEIGHT / scale)),
        weight_scale=np.float32(scale),
    )

    with pytest.raises(ModelLoadFailed, match="cosine to the original"):
        check(naive, tmp_path)


def test_a_graph_with_one_scale_for_the_whole_batch_is_refused(tmp_path: Path) -> None:
    scale = np.abs(WEIGHT).max() / 127
    usual = graph(
        EMBED,
        helper.make_node("DynamicQuantizeLinear", ["x"], ["uint8", "x_scale", "x_zero"]),
        helper.make_node("MatMulInteger", ["uint8", "weight_int8", "x_zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["float_sums"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x_scale", "weight_scale"], ["scales"]),
        helper.make_node("Mul", ["float_sums", "scales"], ["product"]),
        ADD_BIAS,
        weight_int8=np.int8(np.round(WEIGHT / scale)),
        weight_scale=np.float32(scale),
    )

    with pytest.raises(ModelLoadFailed, match="depend on their company"):
        check(usual, tmp_path)


def test_a_graph_that_gives_no_numbers_is_refused(tmp_path: Path) -> None:
    logs = helper.make_node("Log", ["x"], ["logs"])  # of negative numbers, too
    product = helper.make_node("MatMul", ["logs", "weight"], ["product"])
    model = graph(EMBED, logs, product, ADD_BIAS, weight=np.float32(WEIGHT))

    with pytest.raises(ModelLoadFailed, match="cosine to the original is nan"):
        check(model, tmp_path)


def test_a_graph_without_products_is_refused() -> None:
    negated = helper.make_node("Neg", ["x"], [OUTPUT])

    with pytest.raises(ModelLoadFailed, match="no MatMul"):
        quantise(graph(EMBED, negated), output=OUTPUT)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")

    with pytest.raises(ModelLoadFailed, match="ONNX Runtime cannot open it"):
        answers(tmp_path / "model.onnx", BATCH, output=OUTPUT)
