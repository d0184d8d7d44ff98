from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cortex_stream.errors import InferenceFailed, ModelLoadFailed
from cortex_stream.inference.model import LoadedModel, load_model
from cortex_stream.inference.session import choose_provider, usable_cores
from cortex_stream.settings.sections import InferenceSettings
from tests.tiny_onnx import install_tiny, node, some_numbers, table, tiny_classifier, tiny_onnx

Load = Callable[..., LoadedModel]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(onnx: bytes | None = None, *, runners: int = 1, **facts: Any) -> LoadedModel:
        version = install_tiny(tmp_path, onnx, **facts)
        return load_model(version, InferenceSettings(runners=runners, provider="cpu"))

    return load


def test_a_loaded_model_says_what_it_is(load: Load) -> None:
    model = load(runners=3, prefixes={"query": "q: "})

    assert model.reference == "tiny@1"
    assert model.digest.startswith("sha256:")
    assert (model.task, model.dims, model.labels) == ("embedding", 4, ())
    assert (model.max_tokens, model.provider) == (32, "cpu")
    assert model.prefixes == {"query": "q: "}
    assert [runner.model for runner in model.runners] == ["tiny@1"] * 3


def test_by_default_there_is_a_runner_per_usable_core(load: Load) -> None:
    assert len(load(runners=0).runners) == usable_cores()


def test_a_vector_is_the_normalised_mean_of_its_tokens(load: Load) -> None:
    model = load()
    [row] = model.tokenizer.encode(["abc"])

    [vector] = model.runners[0].run([row])

    mean = some_numbers()[row.ids].mean(axis=0)
    assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)


def test_cls_pooling_without_normalising_is_the_first_token_as_it_is(load: Load) -> None:
    model = load(pooling="cls", normalise=False)
    [row] = model.tokenizer.encode(["abc"])

    [vector] = model.runners[0].run([row])

    assert vector.tolist() == some_numbers()[row.ids[0]].tolist()


def test_runners_that_share_a_session_do_not_disturb_each_other(load: Load) -> None:
    model = load(runners=4)
    rows = model.tokenizer.encode([f"text number {i}" * (i % 3 + 1) for i in range(40)])
    expected = np.vstack([model.runners[0].run([row]) for row in rows])

    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(lambda runner: [runner.run(rows) for _ in range(50)], model.runners)
        )

    assert all(np.array_equal(each, expected) for per_runner in answers for each in per_runner)


def test_a_classification_model_gives_its_logits_as_they_are(load: Load) -> None:
    model = load(
        tiny_classifier(),
        task="sequence-classification",
        output="logits",
        labels=list("abcd"),
        dims=None,
        pooling=None,
        normalise=False,
    )
    [row] = model.tokenizer.encode(["abc"])

    [logits] = model.runners[0].run([row])

    assert (model.task, model.dims, model.labels) == (
        "sequence-classification",
        None,
        tuple("abcd"),
    )
    assert logits.tolist() == some_numbers()[row.ids].max(axis=0).tolist()


def test_a_closed_model_runs_no_more(load: Load) -> None:
    model = load(runners=2)

    model.close()

    for runner in model.runners:
        with pytest.raises(InferenceFailed, match="closed"):
            runner.run(model.tokenizer.encode(["a"]))


def test_a_table_with_nan_is_found_when_it_is_loaded(load: Load) -> None:
    numbers = some_numbers()
    numbers[1] = np.nan  # the first special token, so that every text meets it

    with pytest.raises(ModelLoadFailed, match="not finite"):
        load(tiny_onnx(tensor=table(numbers)))


def test_an_opset_of_the_future_is_refused_with_a_clear_text(load: Load) -> None:
    with pytest.raises(ModelLoadFailed, match="opset"):
        load(tiny_onnx(opset=999))


def test_an_unknown_operator_is_refused(load: Load) -> None:
    with pytest.raises(ModelLoadFailed, match="Foo"):
        load(tiny_onnx(more_nodes=node("Foo", ["table"], ["out"])))


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"dims": 5}, "wanted 5 numbers per row"),
        ({"output": "pooler_output"}, "'pooler_output'"),
        ({"pooling": None}, "3 axes, and pooling none needs 2"),
    ],
)
def test_an_output_other_than_the_manifest_says_is_refused(
    load: Load, facts: dict[str, Any], text: str
) -> None:
    with pytest.raises(ModelLoadFailed, match=text):
        load(**facts)


@pytest.mark.parametrize(
    ("onnx", "text"),
    [
        (tiny_onnx(inputs=("input_ids", "pixels")), "pixels"),
        (tiny_onnx(input_type=6), "not all int64"),
    ],
)
def test_a_graph_that_is_no_text_model_is_refused(load: Load, onnx: bytes, text: str) -> None:
    with pytest.raises(ModelLoadFailed, match=text):
        load(onnx)


def test_a_tokenizer_with_more_tokens_than_the_model_is_found_when_it_is_loaded(
    load: Load,
) -> None:
    with pytest.raises(ModelLoadFailed, match="its first run failed"):
        load(tiny_onnx(tensor=table(some_numbers()[:3])))


@pytest.mark.parametrize(
    ("wanted", "available", "chosen"),
    [
        ("auto", ["CPUExecutionProvider"], "cpu"),
        ("auto", ["CUDAExecutionProvider", "CPUExecutionProvider"], "cuda"),
        ("cpu", ["CUDAExecutionProvider", "CPUExecutionProvider"], "cpu"),
        ("cuda", ["CUDAExecutionProvider", "CPUExecutionProvider"], "cuda"),
    ],
)
def test_the_device_follows_the_setting_and_what_is_there(
    wanted: Any, available: list[str], chosen: str
) -> None:
    assert choose_provider(wanted, available) == chosen


def test_cuda_that_is_demanded_and_absent_is_an_error_that_says_what_to_install() -> None:
    with pytest.raises(ModelLoadFailed, match="offers only CPUExecutionProvider") as caught:
        choose_provider("cuda", ["CPUExecutionProvider"])

    assert "extra `gpu`" in str(caught.value.repair)


@pytest.mark.parametrize(
    ("quota", "most"),
    [("100000 100000", 1), ("50000 100000", 1), ("max 100000", 10**6), ("?", 10**6)],
)
def test_a_container_with_a_cpu_quota_gets_no_more_threads(
    tmp_path: Path, quota: str, most: int
) -> None:
    (tmp_path / "cpu.max").write_text(quota)

    assert usable_cores(tmp_path) == min(most, usable_cores(tmp_path / "none"))
