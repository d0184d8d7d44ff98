"""What ONNX Runtime says when a device, not a row, is at fault. Pure.

ONNX Runtime has no error class for it: its exceptions carry the reason in their text alone, such as

    CUDA failure 2: out of memory ; GPU=0 ; hostname=... ; expr=cudaMalloc(...)
    bfc_arena.cc:376 ... Failed to allocate memory for requested buffer of size 939524096
    CUDA failure 719: unspecified launch failure ; GPU=0 ; ... ; expr=cudaMemcpyAsync(...)
    CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0 ; ...

The numbers are those of `cudaError_t` in the CUDA Runtime API. After most of the 700s CUDA refuses
everything until the process is started again, so no probe passes and the fallback keeps serving.
"""

import re
from enum import Enum, auto
from typing import Final


class DeviceFault(Enum):
    """Why a run failed although its rows are sound."""

    OUT_OF_MEMORY = auto()  # fewer rows may fit
    LOST = auto()  # nothing will run there for now


_OUT_OF_MEMORY: Final = re.compile(
    r"CUDA failure 2:"
    r"|Failed to allocate memory for requested buffer"  # the arena of either device
    r"|CU(BLAS|DNN)_STATUS_ALLOC_FAILED"
    r"|std::bad_alloc|\bbad allocation\b"
)
_LOST_CUDA: Final = frozenset(
    {
        *(4, 46),  # the driver is being unloaded; every device is busy or unavailable
        *(100, 101),  # no device; the device's number is not there any more
        *(201, 214, 220, 226),  # no context; memory or link errors that could not be corrected
        *(304, 802),  # a call to the operating system failed; the system is not initialised
        *(700, 702, 709, 710),  # illegal address; time-out; context destroyed; failed assertion
        *range(714, 720),  # the hardware's stack, instruction, address, program counter, launch
        999,  # unknown
    }
)
_CUDA_FAILURE: Final = re.compile(r"CUDA (?:failure|error) (\d+)")
_LOST_LIBRARY: Final = re.compile(
    r"CUBLAS_STATUS_(NOT_INITIALIZED|MAPPING_ERROR|EXECUTION_FAILED|INTERNAL_ERROR)"
    r"|CUDNN_STATUS_(NOT_INITIALIZED|MAPPING_ERROR|EXECUTION_FAILED|INTERNAL_ERROR)"
)


def device_fault(message: str) -> DeviceFault | None:
    """Return what the text of an ONNX Runtime error says about the device; None: the rows did it."""
    if _OUT_OF_MEMORY.search(message):
        return DeviceFault.OUT_OF_MEMORY
    numbers = {int(number) for number in _CUDA_FAILURE.findall(message)}
    if numbers & _LOST_CUDA or _LOST_LIBRARY.search(message):
        return DeviceFault.LOST
    return None
