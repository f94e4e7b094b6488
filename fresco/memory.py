"""Recognise that memory ran out, and release memory."""

from __future__ import annotations

import ctypes
import gc
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from fresco.errors import OutOfMemoryError

_SIGNS = (
    "out of memory",  # CUDA, ROCm, XPU, MPS
    "out_of_device_memory", "out_of_host_memory",  # XPU, below torch
    "status_alloc_failed",  # cuBLAS, cuDNN, cuSOLVER
    "cublas_status_not_initialized",  # cuBLAS finds no room for its workspace
    "unable to find an engine to execute this computation",  # cuDNN, for the same reason
    "invalid buffer size",  # MPS, one buffer that is too large
    "can't allocate memory", "not enough memory",  # torch on the CPU: POSIX, Windows
    "not enough gpu video memory",  # DirectML
    "insufficient memory",  # OpenCV
)
"""Texts in error messages, in lower case, that mean a lack of memory."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of glibc's mallopt."""
_MOST_FREED, _LARGEST_KEPT = 64 << 20, 32 << 20
"""Bytes of freed memory that are kept at most, and of a block that is; glibc allows no larger one.
"""
_SPEAKERS = ("RuntimeError", "cv2.error")
"""Classes of errors whose messages are checked."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    if isinstance(error, (MemoryError, OutOfMemoryError)):
        return True
    names = {f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
             for kind in type(error).__mro__}
    text = str(error).lower()
    return not names.isdisjoint(_SPEAKERS) and any(sign in text for sign in _SIGNS)


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Within the context, running out of memory raises `OutOfMemoryError` with a reason."""
    try:
        yield
    except OutOfMemoryError:
        raise  # its message is more exact
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0] or "no memory left"
        raise OutOfMemoryError(
            f"Memory ran out {what} ({reason}). Lower keyframes.batch_size or "
            "sampling.resolution."
        ) from error


def release_memory() -> None:
    """Release the memory of a failed try: its tensors, and blocks that torch keeps for later."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def keep_freed_memory() -> None:
    """Let this process reuse memory that it has freed, if the C library is glibc.

    glibc returns large blocks, such as a frame's arrays, to the system when they are freed, and new
    pages take more time than many operations on them. It also keeps the freed memory of each thread
    apart; threads that start from now on share it.
    """
    if (library := _find_glibc()) is not None:
        library.mallopt(_ARENA_MAX, 1)
        library.mallopt(_TRIM_THRESHOLD, _MOST_FREED)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)


def trim_memory() -> None:
    """Return freed memory to the system, if the C library is glibc.

    To be called when later work needs blocks of other sizes than those that `keep_freed_memory` has
    kept.
    """
    if (library := _find_glibc()) is not None:
        library.malloc_trim(0)


@lru_cache(maxsize=1)
def _find_glibc() -> ctypes.CDLL | None:
    """Find the C library of this process if it is glibc; computed once."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
