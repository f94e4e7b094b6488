"""`modules.devices`: where and in which number format things are."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor

device: torch.device = torch.device("cpu")
cpu = torch.device("cpu")
dtype = torch.float32
dtype_vae: torch.dtype = torch.float32
dtype_unet: torch.dtype = torch.float32


def autocast(disable: bool = False) -> AbstractContextManager[None]:
    """Nothing to cast on the CPU."""
    return contextlib.nullcontext()


def without_autocast(disable: bool = False) -> AbstractContextManager[None]:
    """The same."""
    return contextlib.nullcontext()


def torch_gc() -> None:
    """No memory of a graphics card to free."""


def test_for_nans(x: Tensor, where: str) -> None:
    """Fail on a broken result."""
    if bool(torch.isnan(x).all()):
        raise RuntimeError(f"all values of {where} are NaN")


test_for_nans.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]
