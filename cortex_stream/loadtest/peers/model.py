"""The part that every peer shares, so that a comparison is one of everything around the model.

A text becomes tokens, and tokens become a vector, as in our own runners: the same tokenizer, one
thread per session, mean pooling, length one. ONNX Runtime's other options are its defaults, as peers
would have them: memory patterns, which ours does without, changed the time by 3 % at most.

Owner: any thread; `run` takes a session for itself while it runs.
"""

from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
from tokenizers import Tokenizer

from cortex_stream.inference.runtime import onnxruntime
from cortex_stream.inference.tensors import FloatRows, IntRows, normalise, pad, pool_mean
from cortex_stream.registry.manifest import read_manifest

_ONLY_ERRORS: Final = 3  # ONNX Runtime's warnings are about graphs


class PeerModel:
    """An embedding model out of a version's folder.

    Args:
        folder: holds `model.yaml` and the files that it names.
        sessions: how many texts or batches can run at once, one thread each.

    Raises:
        UnsafeModel: the manifest cannot be read.
    """

    def __init__(self, folder: Path, *, sessions: int = 1) -> None:
        manifest = read_manifest(folder)
        self._output = manifest.output
        self._tokenizer = Tokenizer.from_file(str(folder / manifest.tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(manifest.max_tokens)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ONLY_ERRORS
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        opened = [
            onnxruntime.InferenceSession(
                str(folder / manifest.file), options, providers=["CPUExecutionProvider"]
            )
            for _ in range(sessions)
        ]
        self._inputs = {each.name for each in opened[0].get_inputs()}
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for session in opened:
            self._idle.put(session)

    def embed(self, texts: Sequence[str]) -> FloatRows:
        """Return one vector per text, shape `(texts, dims)`, all texts in one run. Blocks."""
        return self.run(self.encode(texts))

    def encode(self, texts: Sequence[str]) -> list[IntRows]:
        """Return the token ids of each text, shape `(tokens,)`."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        return [np.array(encoding.ids, np.int64) for encoding in encodings]

    def run(self, rows: Sequence[IntRows]) -> FloatRows:
        """Return one vector per row, shape `(rows, dims)`. Blocks, also until a session is idle."""
        ids, mask = pad(rows)
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        session = self._idle.get()
        try:
            (hidden,) = session.run(
                [self._output],
                {name: array for name, array in feeds.items() if name in self._inputs},
            )
        finally:
            self._idle.put(session)
        return normalise(pool_mean(hidden, [len(row) for row in rows]))
