"""Find the machine's accelerator and the number format of a model."""

from __future__ import annotations

import torch


def find_accelerator() -> torch.device | None:
    """Find the machine's accelerator; None if there is none."""
    if hasattr(torch, "accelerator"):  # since torch 2.6; older versions are asked one by one
        here = torch.accelerator.is_available()
        return torch.accelerator.current_accelerator() if here else None
    if torch.cuda.is_available():
        return torch.device(torch.cuda.current_device())  # a bare number is a CUDA device
    return torch.device("mps") if torch.backends.mps.is_available() else None


def find_dtype(model: torch.nn.Module) -> torch.dtype:
    """Find the number format of a model's weights.

    The property `dtype` of diffusers' models is slow, because it looks at every layer.
    """
    return next(weight.dtype for weight in model.parameters() if weight.is_floating_point())
