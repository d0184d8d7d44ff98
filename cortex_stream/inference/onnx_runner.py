"""The runner that does the work: one batch through an ONNX Runtime session.

Invariants:
    Every number handed out is finite.

Owner: one thread at a time per runner; several runners may share a session.
"""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from cortex_stream.errors import (
    DeviceFailed,
    DeviceOutOfMemory,
    InferenceFailed,
    InvalidOutput,
    ModelLoadFailed,
    RunInterrupted,
)
from cortex_stream.inference import tensors
from cortex_stream.inference.device_faults import DeviceFault, device_fault
from cortex_stream.inference.session import OpenSession, run_options
from cortex_stream.inference.tensors import FloatRows, FloatTokens, IntRows
from cortex_stream.inference.tokenizer import TokenRow

_PROBE: Final = TokenRow(np.zeros(8, np.int64))  # id 0 is in every vocabulary


class OnnxRunner:
    """Runs one model version; see `Runner` for the contract.

    Raises:
        ModelLoadFailed: the output's rank does not fit the pooling.
    """

    def __init__(
        self,
        session: OpenSession,
        *,
        model: str,
        width: int,
        pooling: Literal["mean", "cls"] | None,
        normalise: bool,
    ) -> None:
        wanted_rank = 2 if pooling is None else 3
        if session.output_rank != wanted_rank:
            raise ModelLoadFailed(
                f"loading {model}: output {session.output!r} has {session.output_rank} axes, and"
                f" pooling {pooling or 'none'} needs {wanted_rank}"
            )
        self._session: OpenSession | None = session
        self._model = model
        self._width = width
        self._pooling = pooling
        self._normalise = normalise
        self._options = run_options()  # of the run under way, or of the last one

    @property
    def model(self) -> str:
        """The version it runs, as `name@version`."""
        return self._model

    @property
    def width(self) -> int:
        """Numbers per row."""
        return self._width

    def run(self, rows: Sequence[TokenRow]) -> FloatRows:
        """Return one float32 row per token row, shape `(len(rows), width)`. Blocks.

        When the device has no memory for all rows, they run in two halves.

        Raises:
            InferenceFailed: ONNX Runtime refused the batch, or the runner is closed.
            InvalidOutput: it gave NaN, infinity or another shape.
            DeviceOutOfMemory: a half did not fit either, or there was one row alone.
            DeviceFailed: the device is lost.
            RunInterrupted: `interrupt` was called.
        """
        if not rows:
            return np.empty((0, self._width), np.float32)
        try:
            return self._run(rows)
        except DeviceOutOfMemory:
            if len(rows) == 1:
                raise
        half = (len(rows) + 1) // 2
        return np.concatenate([self._run(rows[:half]), self._run(rows[half:])])

    def probe(self) -> None:
        """Run eight tokens; raise what `run` would."""
        self._run([_PROBE])

    def interrupt(self) -> None:
        """End the run under way before the graph's next node, some milliseconds from now."""
        self._options.terminate = True

    def close(self) -> None:
        """Let go of the session; the last runner's close frees it."""
        self._session = None

    def _run(self, rows: Sequence[TokenRow]) -> FloatRows:
        if self._session is None:
            raise InferenceFailed(f"running {self._model}: the runner is closed")
        self._options = options = run_options()
        ids, mask = tensors.pad([row.ids for row in rows])
        try:
            raw = self._session.run(_feeds(self._session.inputs, ids=ids, mask=mask), options)
        except Exception as error:  # its classes share no parent below Exception
            fault = device_fault(str(error))
            if options.terminate and fault is None:
                raise RunInterrupted(f"running {self._model}: interrupted") from error
            failure = {
                None: InferenceFailed,
                DeviceFault.LOST: DeviceFailed,
                DeviceFault.OUT_OF_MEMORY: DeviceOutOfMemory,
            }[fault]
            raise failure(
                f"running {self._model} on {ids.shape[0]} rows of {ids.shape[1]} tokens: {error}"
            ) from error
        if raw.shape[0] != len(rows) or raw.shape[-1] != self._width:
            raise InvalidOutput(
                f"running {self._model} on {len(rows)} rows: output of shape {raw.shape},"
                f" wanted {self._width} numbers per row"
            )
        numbers = self._pooled(raw, [row.tokens for row in rows])
        if not np.isfinite(numbers).all():
            raise InvalidOutput(f"running {self._model} on {len(rows)} rows: output is not finite")
        return numbers

    def _pooled(self, raw: FloatTokens, lengths: Sequence[int]) -> FloatRows:
        if self._pooling == "mean":
            rows = tensors.pool_mean(raw, lengths)
        elif self._pooling == "cls":
            rows = tensors.pool_cls(raw)
        else:
            rows = raw.astype(np.float32, copy=False)
        return tensors.normalise(rows) if self._normalise else rows


def _feeds(inputs: frozenset[str], *, ids: IntRows, mask: IntRows) -> dict[str, IntRows]:
    feeds = {"input_ids": ids}
    if "attention_mask" in inputs:
        feeds["attention_mask"] = mask
    if "token_type_ids" in inputs:
        feeds["token_type_ids"] = np.zeros_like(ids)
    return feeds
