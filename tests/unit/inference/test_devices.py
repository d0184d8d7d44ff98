"""Devices that are not there, and devices that fail: everything about a GPU that needs none."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.errors import DeviceFailed, DeviceOutOfMemory, ModelLoadFailed, RunInterrupted
from cortex_stream.inference.model import load_model, warm_up_shapes, with_standby
from cortex_stream.inference.onnx_runner import OnnxRunner
from cortex_stream.inference.session import OpenSession, open_session, run_options
from cortex_stream.inference.tokenizer import TokenRow
from cortex_stream.settings.sections import InferenceSettings
from tests.cuda import load_on_cuda
from tests.tiny_onnx import DIMS, half_precision_onnx, install_tiny, some_numbers, tiny_onnx

NO_MEMORY = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running MatMul"
    " node. Name:'' Status Message: bfc_arena.cc:376 Failed to allocate memory for requested buffer"
    " of size 939524096"
)
LOST = "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 719: unspecified launch failure ; GPU=0"
CPU = InferenceSettings(runners=1, provider="cpu")


@dataclass
class FailingSession:
    """A session on a device with room for `room_rows`, where each row's output is its first id."""

    room_rows: int
    error: str = NO_MEMORY

    def run(self, _: list[str], feeds: dict[str, npt.NDArray[np.int64]], options: Any) -> list[Any]:
        assert options.log_severity_level == 4
        ids = feeds["input_ids"]
        if len(ids) > self.room_rows:
            raise RuntimeError(self.error)
        return [np.repeat(ids[:, :1], DIMS, axis=1).astype(np.float32)]


def runner_on(session: FailingSession) -> OnnxRunner:
    opened = OpenSession(session, "cpu", frozenset({"input_ids"}), "logits", 2)
    return OnnxRunner(opened, model="tiny@1", width=DIMS, pooling=None, normalise=False)


def rows(count: int) -> list[TokenRow]:
    return [TokenRow(np.full(3, number, np.int64)) for number in range(count)]


@pytest.mark.parametrize("count", [2, 7, 8])
def test_a_batch_that_does_not_fit_runs_in_halves_and_keeps_its_order(count: int) -> None:
    numbers = runner_on(FailingSession(room_rows=4)).run(rows(count))

    assert numbers[:, 0].tolist() == list(range(count))


def test_a_batch_of_which_a_half_does_not_fit_either_says_so() -> None:
    with pytest.raises(DeviceOutOfMemory, match="tiny@1 on 5 rows of 3 tokens"):
        runner_on(FailingSession(room_rows=4)).run(rows(9))


def test_a_row_that_does_not_fit_alone_is_not_tried_twice() -> None:
    with pytest.raises(DeviceOutOfMemory, match="tiny@1 on 1 rows"):
        runner_on(FailingSession(room_rows=0)).run(rows(1))


def test_a_lost_device_is_not_asked_again() -> None:
    with pytest.raises(DeviceFailed, match="tiny@1 on 8 rows") as raised:
        runner_on(FailingSession(room_rows=4, error=LOST)).run(rows(8))

    assert not isinstance(raised.value, DeviceOutOfMemory)
    assert raised.value.disposition == "retry"


@pytest.mark.parametrize(
    ("error", "raised"), [("Exiting due to terminate flag", RunInterrupted), (LOST, DeviceFailed)]
)
def test_a_device_that_is_lost_during_an_interruption_is_lost(
    error: str, raised: type[Exception]
) -> None:
    class Interrupted(FailingSession):
        def run(
            self, _: list[str], feeds: dict[str, npt.NDArray[np.int64]], options: Any
        ) -> list[Any]:
            runner.interrupt()
            return super().run(_, feeds, options)

    runner = runner_on(Interrupted(room_rows=0, error=error))

    with pytest.raises(raised):
        runner.run(rows(2))


def test_a_probe_says_what_a_run_would() -> None:
    runner_on(FailingSession(room_rows=1)).probe()

    with pytest.raises(DeviceFailed, match="CUDA failure 719"):
        runner_on(FailingSession(room_rows=0, error=LOST)).probe()


@pytest.mark.parametrize("onnx", [tiny_onnx(), half_precision_onnx()])
def test_bound_inputs_and_outputs_give_what_a_plain_run_gives(tmp_path: Path, onnx: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx)
    session = open_session(path, wanted="cpu", output="last_hidden_state")
    ids = np.arange(12, dtype=np.int64).reshape(3, 4)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    plain, bound = session.run(feeds, run_options()), session.run_bound(feeds, run_options())

    assert bound.dtype == plain.dtype
    assert np.array_equal(bound, plain)
    assert np.array_equal(
        bound, session.run_bound(feeds, run_options())
    )  # nothing of a run is left in the next


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_model_in_half_precision_gives_float32(tmp_path: Path, pooling: str) -> None:
    model = load_model(install_tiny(tmp_path, half_precision_onnx(), pooling=pooling), CPU)
    [row] = model.tokenizer.encode(["abc"])

    [vector] = model.runners[0].run([row])

    table = some_numbers().astype(np.float16).astype(np.float32)
    pooled = table[row.ids].mean(axis=0) if pooling == "mean" else table[row.ids[0]]
    assert vector.dtype == np.float32
    assert vector == pytest.approx(pooled / np.linalg.norm(pooled), abs=1e-6)


def test_a_model_on_another_device_has_itself_on_the_cpu_as_standby(tmp_path: Path) -> None:
    version = install_tiny(tmp_path)
    on_gpu = replace(load_model(version, CPU), provider="cuda")

    model = with_standby(on_gpu, version, InferenceSettings(runners=2, provider="auto"))

    assert model.standby is not None
    assert (model.standby.provider, len(model.standby.runners)) == ("cpu", 2)
    assert model.standby.standby is None
    model.close()
    with pytest.raises(Exception, match="closed"):
        model.standby.runners[0].probe()


def test_a_model_that_the_cpu_cannot_open_is_served_without_a_standby(tmp_path: Path) -> None:
    version = install_tiny(tmp_path)
    on_gpu = replace(load_model(version, CPU), provider="cuda")
    version.onnx_path.chmod(0o600)
    version.onnx_path.write_bytes(b"operators for a GPU alone")

    assert with_standby(on_gpu, version, CPU).standby is None


def test_a_device_that_fails_while_a_model_is_loaded_stops_the_start(tmp_path: Path) -> None:
    broken = install_tiny(tmp_path)

    with pytest.MonkeyPatch.context() as patch:
        opened = OpenSession(FailingSession(0, LOST), "cpu", frozenset({"input_ids"}), "x", 3)
        patch.setattr("cortex_stream.inference.model.open_session", lambda *_, **__: opened)
        with pytest.raises(
            ModelLoadFailed, match=r"its first run failed.*CUDA failure 719"
        ) as raised:
            load_model(broken, CPU)
    assert "nvidia-smi" in str(raised.value.repair)


def test_the_shapes_warmed_up_are_the_largest_batches_of_doubling_lengths() -> None:
    cpu = warm_up_shapes(256, max_rows=8, max_tokens=256)
    gpu = warm_up_shapes(300, max_rows=32, max_tokens=None)

    assert cpu == [(8, 8), (8, 16), (8, 32), (4, 64), (2, 128), (1, 256)]
    assert gpu == [(32, 8), (32, 16), (32, 32), (32, 64), (32, 128), (32, 256), (32, 300)]


@given(st.integers(1, 8192), st.integers(1, 512), st.one_of(st.none(), st.integers(1, 65536)))
def test_warm_up_is_short_ends_with_the_longest_and_keeps_to_the_rule(
    longest: int, max_rows: int, max_tokens: int | None
) -> None:
    shapes = warm_up_shapes(longest, max_rows=max_rows, max_tokens=max_tokens)

    assert len(shapes) <= 11
    assert shapes[-1][1] == longest
    assert [tokens for _, tokens in shapes] == sorted({tokens for _, tokens in shapes})
    for count, tokens in shapes:
        assert 1 <= count <= max_rows
        assert max_tokens is None or count == 1 or count * tokens <= max_tokens


@pytest.mark.gpu
def test_a_model_on_cuda_answers_as_on_the_cpu_and_has_a_standby(tmp_path: Path) -> None:
    version = install_tiny(tmp_path, half_precision_onnx())
    on_cuda = load_on_cuda(version)
    texts = on_cuda.tokenizer.encode(["a", "a longer text", "ä"])

    answers = on_cuda.runners[0].run(texts)

    assert on_cuda.provider == "cuda"
    assert on_cuda.standby is not None
    assert answers == pytest.approx(on_cuda.standby.runners[0].run(texts), abs=1e-3)
    on_cuda.runners[0].probe()
