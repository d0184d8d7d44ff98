import pytest

from cortex_stream.inference.device_faults import DeviceFault, device_fault

RUNNING = "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running"
ARENA = (
    "void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) Failed to allocate memory for"
    " requested buffer of size 8388608000"
)
WHERE = "; GPU=0 ; hostname=node-1 ; file=cuda_call.cc ; line=123 ; expr=cudaMemcpyAsync(...);"


@pytest.mark.parametrize(
    "message",
    [
        f"{RUNNING} FusedMatMul node. Name:'MatMul_92' Status Message: bfc_arena.cc:376 {ARENA}",
        f"[ONNXRuntimeError] : 1 : FAIL : CUDA failure 2: out of memory {WHERE}",
        f"CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED {WHERE}",
        f"CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED {WHERE}",
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc",
        # the failure to allocate comes with the failure of what was to be done
        f"CUDA failure 2: out of memory {WHERE} CUDNN_STATUS_INTERNAL_ERROR",
    ],
)
def test_a_device_without_memory_is_recognised(message: str) -> None:
    assert device_fault(message) is DeviceFault.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "message",
    [
        f"[ONNXRuntimeError] : 1 : FAIL : CUDA failure 719: unspecified launch failure {WHERE}",
        f"CUDA failure 700: an illegal memory access was encountered {WHERE}",
        f"CUDA failure 100: no CUDA-capable device is detected {WHERE}",
        f"CUDA failure 214: uncorrectable ECC error encountered {WHERE}",
        f"CUDA failure 46: all CUDA-capable devices are busy or unavailable {WHERE}",
        f"CUDA failure 999: unknown error {WHERE}",
        f"CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED {WHERE}",
        f"CUDNN failure 8: CUDNN_STATUS_EXECUTION_FAILED {WHERE}",
    ],
)
def test_a_lost_device_is_recognised(message: str) -> None:
    assert device_fault(message) is DeviceFault.LOST


@pytest.mark.parametrize(
    "message",
    [
        f"{RUNNING} Gather node. Name:'' Status Message: indices element out of data bounds",
        f"CUDA failure 1: invalid argument {WHERE}",
        f"CUDA failure 7190: no such number {WHERE}",
        "the text 700 has nothing to do with it",
        "",
    ],
)
def test_anything_else_is_held_against_the_rows(message: str) -> None:
    assert device_fault(message) is None
