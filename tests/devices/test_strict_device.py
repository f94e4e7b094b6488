"""The strict device itself: it refuses what real ones refuse, and misses no wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fresco.guidance.sending import send
from fresco.hosts.diffusers.load import pick_device
from tests.helpers.guided import random_ring
from tests.helpers.strict_device import DeviceError, Log, StrictTensor, strict_device


@pytest.mark.parametrize("work", [
    lambda x: x + torch.ones(3, 4),
    lambda x: torch.ones(1, dtype=torch.float64) / x[0, 0],
    lambda x: torch.cat([x, torch.ones(3, 4)]),
    lambda x: x @ torch.ones(4, 2),
    lambda x: x.index_select(0, torch.tensor([1])),
    lambda x: torch.zeros(3, 4).mul_(x),
    lambda x: torch.zeros(()).add_(x.sum()),
])
def test_mixtures_are_refused(device: torch.device, work: Callable[[Tensor], Tensor]) -> None:
    x = torch.rand(3, 4).to(device)
    with pytest.raises(DeviceError, match="one device"):
        work(x)


@pytest.mark.parametrize("work", [
    lambda x: x.double(), lambda x: x.long().sort(), lambda x: x.long().argsort(stable=True),
    lambda x: x.long().scatter_reduce(1, x.long(), x.long(), "amin"),
])
def test_what_mps_cannot_do_is_refused(
    device: torch.device, work: Callable[[Tensor], object]
) -> None:
    x = torch.zeros(3, 4).to(device)
    with pytest.raises(DeviceError, match="MPS"):
        work(x)


@pytest.mark.parametrize(("work", "kind"), [
    (lambda x: x.sum().item(), "read"),
    (lambda x: bool(x.any()), "read"),
    (lambda x: x.nonzero(), "read"),
    (lambda x: x[x > 0.5], "read"),
    (lambda x: x[torch.tensor([0, 2])], "to device"),
    (lambda x: x[[0, -1]], "to device"),
    (lambda x: torch.tensor([1.0, 2.0], device=x.device), "to device"),
    (lambda x: x.tolist(), "to host"),
    (lambda x: x.cpu(), "to host"),
])
def test_waits_are_noted(
    device: torch.device, log: Log, work: Callable[[Tensor], object], kind: str
) -> None:
    x = torch.rand(3, 4).to(device)
    log.clear()
    work(x)
    assert [wait.kind for wait in log.waits] == [kind]


def test_what_needs_no_answer_is_no_wait(device: torch.device, log: Log) -> None:
    x = torch.rand(2, 3, 4, 4).to(device)
    layer = nn.Conv2d(3, 3, 1).requires_grad_(False).to(device)
    log.clear()
    y = layer(x * torch.tensor(2.0) + 1)[0, :, 1:].contiguous().half().float()
    y[:, 0] = 5
    y.mul_(2).add_(torch.full((), 1.0, device=device))
    assert isinstance(y, StrictTensor)
    assert log.waits == []
    assert float(y[0, 0, 0]) == 11.0


def test_it_is_there_only_while_asked_for() -> None:
    with strict_device() as (device, _):
        assert pick_device("auto").type == device.type
    assert pick_device("auto") == torch.device("cpu")


def test_a_record_is_sent_with_one_copy_a_dtype(device: torch.device, log: Log) -> None:
    ring = random_ring(3, 6, 5)
    record = (ring, "a word", (torch.arange(4), torch.zeros(2, 0)))
    log.clear()
    sent = send(record, device)
    assert len(log.waits) == 2
    for name in ("forward", "backward", "forward_occlusion", "backward_occlusion"):
        assert getattr(sent[0], name).device == device
        assert torch.equal(getattr(sent[0], name).cpu(), getattr(ring, name))
    assert sent[1] == "a word"
    assert torch.equal(sent[2][0].cpu(), torch.arange(4))
    assert sent[2][1].shape == (2, 0)
    assert send(sent, device)[0].forward is sent[0].forward
