"""Opening ONNX Runtime sessions on the right device, with the thread settings that were measured.

Measured with int8 MiniLM on two cores, batches of 8: threads that share one session are as fast as
threads with a session each and take 34 MB less; without memory patterns, which are kept for every
shape ever seen, the process stays 79 MB smaller and uses 5 % less CPU (later, on an Intel Xeon, no
more and no less within 1 %, or 3 % more for lone texts); padding lengths to multiples of 8, to keep
shapes few, only costs (5 % of the CPU). So: one session, all threads, no patterns.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import structlog

from cortex_stream.errors import ModelLoadFailed
from cortex_stream.inference.runtime import onnxruntime

Provider = Literal["cpu", "cuda"]
_PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_INPUTS: Final = frozenset({"input_ids", "attention_mask", "token_type_ids"})
_ONLY_ERRORS: Final = 3  # ONNX Runtime's scale; its warnings are about graphs, not for operators
_ONLY_FATAL: Final = 4

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session and what a runner must know of it.

    Attributes:
        session: `onnxruntime.InferenceSession`; its `run` may be called from many threads.
        inputs: the inputs that the graph wants, by name.
        output: the name of the output that is read.
        output_rank: 3 for hidden states `(rows, tokens, dims)`, 2 for one row per text.
    """

    session: Any
    provider: Provider
    inputs: frozenset[str]
    output: str
    output_rank: int

    def run(
        self, feeds: dict[str, npt.NDArray[np.int64]], options: Any
    ) -> npt.NDArray[np.floating]:
        """Return the output; raises whatever ONNX Runtime raises. `options`: of this run alone."""
        if self.provider != "cpu":
            return self.run_bound(feeds, options)
        (output,) = self.session.run([self.output], feeds, options)
        result: npt.NDArray[np.floating] = output
        return result

    def run_bound(
        self, feeds: dict[str, npt.NDArray[np.int64]], options: Any
    ) -> npt.NDArray[np.floating]:
        """Do what `run` does, with inputs and output in the device's own memory.

        Each input is copied there once however many nodes read it, the output stays there until
        the run has ended, and nothing else is copied back.
        """
        binding = self.session.io_binding()  # one per run: a binding must not be shared
        for name, numbers in feeds.items():
            binding.bind_ortvalue_input(
                name, onnxruntime.OrtValue.ortvalue_from_numpy(numbers, self.provider)
            )
        binding.bind_output(self.output, self.provider)
        self.session.run_with_iobinding(binding, options)
        (output,) = binding.copy_outputs_to_cpu()
        result: npt.NDArray[np.floating] = output
        return result


def open_session(path: Path, *, wanted: Literal["auto", "cpu", "cuda"], output: str) -> OpenSession:
    """Open a graph on the wanted device. Blocks for tenths of a second.

    Raises:
        ModelLoadFailed: ONNX Runtime cannot open it, the device is missing, or the graph's inputs
            and outputs are not those of a text model.
    """
    provider = choose_provider(wanted, onnxruntime.get_available_providers())
    session = _open(path, provider)
    if _PROVIDERS[provider] not in session.get_providers():  # it fell back without raising
        if wanted == "cuda":
            raise ModelLoadFailed(
                f"opening {path} on CUDA: ONNX Runtime found no usable device or CUDA libraries",
                repair="check nvidia-smi, or set CORTEX_INFERENCE__PROVIDER=cpu",
            )
        _log.warning("inference.cuda_unusable", model=str(path), used="cpu")
        provider = "cpu"
    _log.info("inference.session_opened", model=str(path), provider=provider, wanted=wanted)
    return _described(session, path=path, provider=provider, output=output)


def run_options() -> Any:
    """Return the options of one run. Setting their `terminate` ends it, from any thread."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = _ONLY_FATAL  # a run that is ended on purpose is no error
    return options


def choose_provider(wanted: Literal["auto", "cpu", "cuda"], available: Sequence[str]) -> Provider:
    """Return where to run, from the names that ONNX Runtime offers.

    Raises:
        ModelLoadFailed: CUDA is demanded and this ONNX Runtime was built without it.
    """
    cuda = _PROVIDERS["cuda"] in available
    if wanted == "cuda" and not cuda:
        raise ModelLoadFailed(
            f"choosing the device: CORTEX_INFERENCE__PROVIDER is cuda, but the installed ONNX"
            f" Runtime offers only {', '.join(available)}",
            repair="install the extra `gpu` instead of `cpu`, or set"
            " CORTEX_INFERENCE__PROVIDER=auto",
        )
    return "cuda" if cuda and wanted != "cpu" else "cpu"


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many threads can run at once: affinity, bounded by the container's CPU quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:  # macOS
        cores = os.cpu_count() or 1
    try:
        quota_us, period_us = (cgroup / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):  # no cgroup v2 here
        return cores
    if quota_us == "max":
        return cores
    # Rounded down: a thread beyond the quota gets the whole process throttled, heartbeats too.
    return max(1, min(cores, int(quota_us) // int(period_us)))


def _open(path: Path, provider: Provider) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ONLY_ERRORS
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # One thread per run: the runners are the parallelism, and idle threads would spin beside them.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = True
    options.enable_mem_pattern = False
    names = [_PROVIDERS["cpu"]]
    if provider == "cuda":
        onnxruntime.preload_dlls()  # CUDA and cuDNN from their Python packages, where installed so
        names.insert(0, _PROVIDERS["cuda"])
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=names)
    except Exception as error:  # its classes share no parent below Exception
        raise ModelLoadFailed(
            f"opening {path} with ONNX Runtime {onnxruntime.__version__}: {error}",
            repair="get the version again, or export it with an opset that this release reads",
        ) from error


def _described(session: Any, *, path: Path, provider: Provider, output: str) -> OpenSession:
    inputs = {value.name: value.type for value in session.get_inputs()}
    if "input_ids" not in inputs or not inputs.keys() <= _INPUTS:
        raise ModelLoadFailed(
            f"opening {path}: it wants the inputs {sorted(inputs)}; a text model wants input_ids"
            " and nothing beyond attention_mask and token_type_ids"
        )
    if set(inputs.values()) != {"tensor(int64)"}:
        raise ModelLoadFailed(f"opening {path}: its inputs are not all int64: {inputs}")
    outputs = {value.name: value for value in session.get_outputs()}
    if output not in outputs:
        raise ModelLoadFailed(
            f"opening {path}: the manifest names the output {output!r}, it has {sorted(outputs)}"
        )
    return OpenSession(
        session=session,
        provider=provider,
        inputs=frozenset(inputs),
        output=output,
        output_rank=len(outputs[output].shape),
    )
