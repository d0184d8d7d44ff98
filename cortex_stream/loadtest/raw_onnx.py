"""The yardstick: the same texts through ONNX Runtime and the tokenizer alone.

As fast as this machine goes without a broker: every text is known beforehand, so they are sorted as
a whole; as many sessions as cores, one thread each; batches of 8. None of our own runner code.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from tokenizers import Tokenizer

from cortex_stream.clock import SystemClock
from cortex_stream.inference.runtime import onnxruntime
from cortex_stream.loadtest.ledger import Vectors

_BATCH_ROWS: Final = 8
_WARM_UP_TEXTS: Final = 64


@dataclass(frozen=True, slots=True)
class RawRun:
    """One pass over all texts.

    Attributes:
        cpu_s: processor time of this process, tokenising included.
        vectors: shape `(texts, dims)`, in the order of the texts, of length one.
        tokens: per text, special tokens included.
    """

    elapsed_s: float
    cpu_s: float
    vectors: Vectors
    tokens: list[int]


class RawEmbedder:
    """An embedding model with mean pooling, as plainly as it can be run.

    Args:
        onnx_path: with inputs `input_ids`, `attention_mask` and perhaps `token_type_ids`.
        sessions: how many, one thread each.
        max_tokens: what one text may have; the rest is cut off.
    """

    def __init__(
        self, *, onnx_path: Path, tokenizer_path: Path, sessions: int, max_tokens: int
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._sessions = [
            onnxruntime.InferenceSession(
                str(onnx_path), options, providers=["CPUExecutionProvider"]
            )
            for _ in range(sessions)
        ]
        self._inputs = {each.name for each in self._sessions[0].get_inputs()}
        self._tokenizer = Tokenizer.from_file(str(tokenizer_path))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)

    def run(self, texts: Sequence[str]) -> RawRun:
        """Embed all texts, after a short warm-up that does not count. Blocks."""
        self._embed(texts[:_WARM_UP_TEXTS])
        clock, cpu_s = SystemClock(), time.process_time()
        began_s = clock.monotonic_s()
        vectors, tokens = self._embed(texts)
        return RawRun(
            elapsed_s=clock.monotonic_s() - began_s,
            cpu_s=time.process_time() - cpu_s,
            vectors=vectors,
            tokens=tokens,
        )

    def _embed(self, texts: Sequence[str]) -> tuple[Vectors, list[int]]:
        with ThreadPoolExecutor(len(self._sessions)) as pool:
            ids = list(pool.map(self._encode, self._shares(texts)))
            rows = [row for share in ids for row in share]
            order = sorted(range(len(rows)), key=lambda index: len(rows[index]), reverse=True)
            batches = [order[at : at + _BATCH_ROWS] for at in range(0, len(order), _BATCH_ROWS)]
            waiting, lock = iter(batches), threading.Lock()

            def work(session: Any) -> list[tuple[list[int], Vectors]]:
                done: list[tuple[list[int], Vectors]] = []
                while True:
                    with lock:
                        batch = next(waiting, None)
                    if batch is None:
                        return done
                    done.append((batch, self._infer(session, [rows[index] for index in batch])))

            finished = [item for part in pool.map(work, self._sessions) for item in part]
        dims = finished[0][1].shape[1]
        vectors = np.empty((len(rows), dims), np.float32)
        for batch, computed in finished:
            vectors[batch] = computed
        return vectors, [len(row) for row in rows]

    def _shares(self, texts: Sequence[str]) -> list[Sequence[str]]:
        size = -(-len(texts) // len(self._sessions))
        return [texts[at : at + size] for at in range(0, len(texts), size)]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._tokenizer.encode(text).ids for text in texts]

    def _infer(self, session: Any, rows: Sequence[Sequence[int]]) -> Vectors:
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        feeds = {name: array for name, array in feeds.items() if name in self._inputs}
        hidden = session.run(None, feeds)[0]
        weights = mask[:, :, None].astype(np.float32)
        pooled = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True), np.float32)
