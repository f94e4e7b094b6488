"""Running out of memory, whatever the device calls it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fresco.errors import OutOfMemoryError

_SIGNS = (
    "out of memory", "STATUS_ALLOC_FAILED", "Invalid buffer size", "can't allocate memory",
    "not enough memory",
)
"""Of CUDA, ROCm and MPS; of cuBLAS and cuDNN; of MPS for one buffer too large; of torch's CPU
allocator on POSIX and on Windows."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Within: running out of memory raises `OutOfMemoryError`, saying what did."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0] or "no memory left"
        raise OutOfMemoryError(
            f"Memory ran out {what} ({reason}). Lower keyframes.batch_size or "
            "sampling.resolution."
        ) from error
