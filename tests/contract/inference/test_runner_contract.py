"""One body for the runner that works and the one that tests use in its place."""

from pathlib import Path

import numpy as np
import pytest

from cortex_stream.errors import DeviceFailed, InferenceFailed, InvalidOutput, RunInterrupted
from cortex_stream.inference.model import LoadedModel, load_model
from cortex_stream.inference.runner import Runner
from cortex_stream.inference.tokenizer import TokenRow
from cortex_stream.settings.sections import InferenceSettings
from cortex_stream.testing.stub_runner import StubRunner, stub_model
from tests.cuda import load_on_cuda
from tests.interrupting import interrupting
from tests.tiny_onnx import install_tiny

TEXTS = ["a", "a longer text", "ä", "1234567890 1234567890", "a"]


class RunnerContract:
    @pytest.fixture
    def model(self) -> LoadedModel:
        raise NotImplementedError

    @pytest.fixture
    def runner(self, model: LoadedModel) -> Runner:
        return model.runners[0]

    @pytest.fixture
    def rows(self, model: LoadedModel) -> list[TokenRow]:
        return model.tokenizer.encode(TEXTS)

    def test_it_knows_its_model_and_width(self, runner: Runner, model: LoadedModel) -> None:
        assert runner.model == model.reference
        assert runner.width == model.dims

    def test_it_gives_a_row_of_float32_for_each_row(
        self, runner: Runner, rows: list[TokenRow]
    ) -> None:
        numbers = runner.run(rows)

        assert numbers.shape == (len(rows), runner.width)
        assert numbers.dtype == np.float32

    def test_it_keeps_the_order(self, runner: Runner, rows: list[TokenRow]) -> None:
        forwards, backwards = runner.run(rows), runner.run(rows[::-1])

        assert np.array_equal(forwards, backwards[::-1])
        assert np.array_equal(forwards[0], forwards[4])
        assert not np.array_equal(forwards[0], forwards[1])

    def test_vectors_are_finite_and_of_length_one(
        self, runner: Runner, rows: list[TokenRow]
    ) -> None:
        assert np.linalg.norm(runner.run(rows), axis=1) == pytest.approx(1, abs=1e-5)

    def test_a_row_answers_the_same_alone_and_in_company(
        self, runner: Runner, rows: list[TokenRow]
    ) -> None:
        alone = np.vstack([runner.run([row]) for row in rows])

        assert np.array_equal(runner.run(rows), alone)

    def test_no_rows_give_no_rows(self, runner: Runner) -> None:
        assert runner.run([]).shape == (0, runner.width)

    def test_a_probe_passes_and_leaves_the_answers_as_they_were(
        self, runner: Runner, rows: list[TokenRow]
    ) -> None:
        before = runner.run(rows)

        runner.probe()

        assert np.array_equal(runner.run(rows), before)

    def test_an_interruption_of_nothing_changes_nothing(
        self, runner: Runner, rows: list[TokenRow]
    ) -> None:
        before = runner.run(rows)

        runner.interrupt()

        assert np.array_equal(runner.run(rows), before)

    def test_closed_twice_it_refuses_to_run(self, runner: Runner, rows: list[TokenRow]) -> None:
        runner.close()
        runner.close()

        with pytest.raises(InferenceFailed, match="closed"):
            runner.run(rows)
        with pytest.raises(InferenceFailed, match="closed"):
            runner.probe()


class TestOnnxRunner(RunnerContract):
    @pytest.fixture
    def model(self, tmp_path: Path) -> LoadedModel:
        return load_model(install_tiny(tmp_path), InferenceSettings(runners=1, provider="cpu"))

    def test_a_run_that_breaks_says_which_model_and_batch(self, runner: Runner) -> None:
        with pytest.raises(InferenceFailed, match=r"tiny@1 on 1 rows of 2 tokens"):
            runner.run([TokenRow(np.array([1, 10_000]))])


@pytest.mark.gpu
class TestOnnxRunnerOnCuda(RunnerContract):
    @pytest.fixture
    def model(self, tmp_path: Path) -> LoadedModel:
        return load_on_cuda(install_tiny(tmp_path))


class TestStubRunner(RunnerContract):
    @pytest.fixture
    def model(self) -> LoadedModel:
        return stub_model()

    def test_it_fails_as_told_and_then_works(self, rows: list[TokenRow]) -> None:
        runner = StubRunner(failures=iter([InferenceFailed("once"), None, InvalidOutput("late")]))

        with pytest.raises(InferenceFailed, match="once"):
            runner.run(rows)
        assert len(runner.run(rows)) == len(rows)
        with pytest.raises(InvalidOutput, match="late"):
            runner.run(rows)
        assert len(runner.run(rows)) == len(rows)
        assert runner.batches == [len(rows)] * 2

    def test_an_interruption_ends_the_run_under_way(self, rows: list[TokenRow]) -> None:
        runner = StubRunner(sleep_s_per_row=60)

        with pytest.raises(RunInterrupted), interrupting(runner):
            runner.run(rows)

    def test_its_probe_fails_as_told_and_then_passes(self) -> None:
        runner = StubRunner(probe_failures=iter([DeviceFailed("CUDA failure 719")]))

        with pytest.raises(DeviceFailed, match="719"):
            runner.probe()
        runner.probe()
        assert runner.batches == []
