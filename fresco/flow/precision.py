"""Compute in full float32, whatever number formats a host has chosen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Within the context, autocast is off, and on CUDA float32 is not rounded to TF32.

    Where a device has no autocast, there is nothing to turn off. TF32 keeps 10 bits of a number's
    24; the flags are those of the process, and are left as they were found.
    """
    try:
        no_autocast = torch.autocast(device.type, enabled=False)
    except RuntimeError:  # such as MPS before PyTorch 2.5
        no_autocast = nullcontext()
    with no_autocast, _without_tf32() if device.type == "cuda" else nullcontext():
        yield


@contextmanager
def _without_tf32() -> Iterator[None]:
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    with ExitStack() as stack:
        for old, new in ((products, products), (convolutions, getattr(convolutions, "conv", None))):
            stack.enter_context(_switched_off(old, new))
        yield


@contextmanager
def _switched_off(old: Any, new: Any) -> Iterator[None]:
    """Within the context, TF32 is off for one kind of operation.

    Args:
        old: has `allow_tf32`. torch 2.9 and later refuse to read that once a host has used the
            newer name; to mix the names ourselves would make other code fail.
        new: has `fp32_precision`.
    """
    try:
        owner, name, before, off = old, "allow_tf32", old.allow_tf32, False
    except RuntimeError:
        owner, name, before, off = new, "fp32_precision", new.fp32_precision, "ieee"
    if before == off:
        yield
        return
    setattr(owner, name, off)
    try:
        yield
    finally:
        setattr(owner, name, before)
