"""Running out of memory is one error, whatever the device or library calls it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from fresco.errors import OutOfMemoryError, SettingsError
from fresco.memory import is_out_of_memory, memory_errors

MESSAGES = [
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "HIP out of memory. Tried to allocate 2.00 GiB",
    "XPU out of memory. Tried to allocate 2.00 GiB",
    "CUDA error: out of memory",
    "MPS backend out of memory (MPS allocated: 17.9 GB, max allowed: 18.1 GB)",
    "Invalid buffer size: 8.21 GB",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "FIND was unable to find an engine to execute this computation",
    "Native API returns: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4503599627370496 bytes. Error code 12 (Cannot allocate memory)",
    "DefaultCPUAllocator: not enough memory: you tried to allocate 34359738368 bytes.",
    "Could not allocate tensor with 134217728 bytes. There is not enough GPU video memory "
    "available!",
]


@pytest.mark.parametrize("words", MESSAGES)
def test_every_allocator_is_understood(words: str) -> None:
    with pytest.raises(OutOfMemoryError, match=r"Memory ran out here .*Lower keyframes"), \
            memory_errors("here"):
        raise RuntimeError(words)


def _too_large_for_torch() -> object:
    return torch.empty(1 << 50)


def _too_large_for_numpy() -> object:
    return np.empty(1 << 60, np.uint8)


def _too_large_for_opencv() -> object:
    return cv2.resize(np.zeros((4, 4), np.uint8), (1 << 30, 1 << 20))


@pytest.mark.parametrize(
    "allocate", [_too_large_for_torch, _too_large_for_numpy, _too_large_for_opencv]
)
def test_what_the_libraries_here_really_raise_is_understood(allocate: object) -> None:
    assert callable(allocate)
    with pytest.raises(OutOfMemoryError), memory_errors("here"):
        allocate()


@pytest.mark.parametrize("error", [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ValueError("out of memory"), SettingsError("sampling.prompt is 'out of memory'."),
])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)), memory_errors("here"):
        raise error


def test_the_first_word_counts() -> None:
    with pytest.raises(OutOfMemoryError, match="ran out inside"), memory_errors("outside"), \
            memory_errors("inside"):
        raise MemoryError
