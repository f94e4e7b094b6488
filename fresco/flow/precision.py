"""Networks and descents that a host's half precision must not reach."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Within: a host's autocast is off. Where a device has none, there is nothing to turn off."""
    try:
        return torch.autocast(device.type, enabled=False)
    except RuntimeError:  # such as MPS before PyTorch 2.5
        return nullcontext()
