"""The model that costs nothing answers like one, and may take time without a processor."""

import time

import numpy as np
import pytest

from cortex_stream.errors import RunInterrupted
from cortex_stream.loadtest.free_model import FreeRunner, free_model
from tests.interrupting import interrupting


def test_every_row_gets_a_vector_of_length_one() -> None:
    model = free_model(FreeRunner())

    numbers = model.runners[0].run(model.tokenizer.encode(["a", "another"]))

    assert numbers.shape == (2, model.dims)
    assert np.linalg.norm(numbers, axis=1) == pytest.approx(1, abs=1e-5)


def test_every_text_has_as_many_tokens_as_a_short_one() -> None:
    rows = free_model(FreeRunner()).tokenizer.encode(["a", "a much longer text " * 20])

    assert [row.tokens for row in rows] == [17, 17]


def test_its_sleep_follows_the_rows_and_takes_no_processor() -> None:
    model = free_model(runner := FreeRunner(sleep_s_per_row=0.05))
    rows = model.tokenizer.encode(["a", "b", "c"])

    began_s, processor_s = time.monotonic(), time.thread_time()
    runner.run(rows)

    assert time.monotonic() - began_s >= 0.15
    assert time.thread_time() - processor_s < 0.05


def test_an_interrupt_ends_its_sleep() -> None:
    model = free_model(runner := FreeRunner(sleep_s_per_row=60))

    with pytest.raises(RunInterrupted), interrupting(runner):
        runner.run(model.tokenizer.encode(["a"]))
