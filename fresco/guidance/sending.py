"""Copy tensors made on the CPU to the device that uses them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Record = TypeVar("Record")


def send(record: Record, device: torch.device) -> Record:
    """Copy a record with all its tensors to a device.

    Every copy to a device waits until the device is idle, so there is one for each dtype instead
    of one for each tensor.

    Args:
        record: a dataclass or tuple of tensors, of other values and of further such records.
    """
    by_dtype: dict[torch.dtype, list[Tensor]] = {}

    def collect(x: Tensor) -> Tensor:
        if x.device != device:
            by_dtype.setdefault(x.dtype, []).append(x)
        return x

    _change_tensors(record, collect)
    sent = {dtype: iter(_send_together(parts, device)) for dtype, parts in by_dtype.items()}
    return _change_tensors(record, lambda x: x if x.device == device else next(sent[x.dtype]))


def _send_together(parts: list[Tensor], device: torch.device) -> list[Tensor]:
    together = torch.cat([part.flatten() for part in parts]).to(device)
    pieces = together.split([part.numel() for part in parts])
    return [piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)]


def _change_tensors(record: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(record, Tensor):
        return change(record)
    if isinstance(record, tuple):
        return tuple(_change_tensors(part, change) for part in record)
    if not dataclasses.is_dataclass(record) or isinstance(record, type):
        return record
    changed = {
        part.name: _change_tensors(getattr(record, part.name), change)
        for part in dataclasses.fields(record)
    }
    return dataclasses.replace(record, **changed)
