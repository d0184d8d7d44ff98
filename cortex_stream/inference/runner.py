"""What the scheduler needs of a model at work: rows in, numbers out, nothing else."""

from collections.abc import Sequence
from typing import Protocol

from cortex_stream.inference.tensors import FloatRows
from cortex_stream.inference.tokenizer import TokenRow


class Runner(Protocol):
    """Runs batches of one model version, one at a time.

    The caller owns the thread: `run` blocks and is never called from two threads at once. A runner
    knows nothing of queues, deadlines or asyncio.
    """

    @property
    def model(self) -> str:
        """The version it runs, as `name@version`."""
        ...

    @property
    def width(self) -> int:
        """Numbers per row: the dimensions of a vector, or the count of labels."""
        ...

    def run(self, rows: Sequence[TokenRow]) -> FloatRows:
        """Return one float32 row per token row, shape `(len(rows), width)`, in order. Blocks.

        Vectors are pooled and, where the model says so, of length one; a classification model
        gives raw logits. All numbers are finite. No rows give no rows.

        Raises:
            InferenceFailed: the run broke; a second try may succeed.
            InvalidOutput: it gave NaN, infinity or another shape.
            DeviceFailed: the device is lost, or out of memory even for half of the rows; the rows
                are not at fault.
            RunInterrupted: `interrupt` was called.
        """
        ...

    def interrupt(self) -> None:
        """End the run under way, from another thread. It may be too early or too late for that."""
        ...

    def probe(self) -> None:
        """Run a few tokens through the model; raise what `run` would. Blocks for a moment."""
        ...

    def close(self) -> None:
        """Give memory back. `run` is never called after it; a second call does nothing."""
        ...
