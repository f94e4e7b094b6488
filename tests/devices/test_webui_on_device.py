"""The script in img2img where the WebUI works on a device."""

from __future__ import annotations

import collections
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fresco.hosts.webui.controlnet_extension import _PerFrame
from tests.helpers.strict_device import Log
from tests.helpers.tolerances import EXACT_BY_DTYPE
from tests.helpers.webui.double import ROOT, running
from tests.helpers.webui.model import place_model
from tests.helpers.webui.requests import NONE, frames
from tests.helpers.webui.watcher import Watcher

CPU = torch.device("cpu")
ALL: dict[str, Any] = {
    "estimator": "dis", "batch_size": 3, "optimization_iterations": 1,
    "background_smoothing": True, "freeu_b1": 1.2, "freeu_s2": 0.9,
}
ATTENTION = NONE | {"batch_size": 3} | dict.fromkeys(
    ("spatial_attention", "cross_frame_attention", "temporal_attention"), True
)
RELATIVE = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}
"""Mean difference of latents, as a share of their size; half-precision kernels round otherwise
where tensors lie otherwise in memory."""


def sample(
    folder: Path, device: torch.device, dtype: torch.dtype, count: int, options: dict[str, Any],
    **payload: Any,
) -> Watcher:
    """What another extension saw of a call on a device."""
    with running(ROOT / "scripts" / "fresco.py", folder, place_model(device, dtype)) as host:
        watcher = Watcher()
        host.add(watcher)
        host.img2img(frames(count), options, **payload)
        assert host.swallowed == []
        return watcher


@pytest.mark.parametrize(("sampler", "dtype", "options", "count"), [
    ("Euler a", torch.float32, ALL, 4), ("DDIM", torch.bfloat16, ATTENTION, 3),
], ids=["Euler a", "DDIM"])
def test_it_gives_the_cpus_latents(
    tmp_path: Path, device: torch.device, sampler: str, dtype: torch.dtype,
    options: dict[str, Any], count: int,
) -> None:
    steps = 3 if sampler == "DDIM" else 2  # which is called once less than it has steps
    payload = {"sampler_name": sampler, "steps": steps, "denoising_strength": 1.0}
    here = sample(tmp_path, CPU, dtype, count, options, **payload)
    there = sample(tmp_path, device, dtype, count, options, **payload)
    assert len(here.iterations) == len(there.iterations) == count - 2
    for one, other in zip(here.iterations, there.iterations, strict=True):
        assert one.samples is not None
        assert other.samples is not None
        assert other.samples.device == device
        error = (one.samples - other.samples.cpu()).abs().mean()
        assert error < RELATIVE[dtype] * one.samples.abs().mean()
    for first, second in itertools.pairwise(there.iterations):
        for before, after in zip(first.inputs, second.inputs, strict=True):
            assert torch.equal(after[0].cpu(), before[0].cpu())
            assert torch.equal(after[1].cpu(), before[-1].cpu())


def test_ours_waits_once_a_call(tmp_path: Path, device: torch.device, log: Log) -> None:
    """For the noise level, and for whether the call before was finite."""
    log.clear()
    watcher = sample(tmp_path, device, torch.float32, 3, ALL, steps=2, denoising_strength=1.0)
    calls = len(watcher.iterations[0].inputs)
    assert calls == 2
    ours = collections.Counter(
        wait.place.split()[-1] for wait in log.waits
        if wait.place.startswith(("fresco/guidance", "fresco/hosts"))
        # What runs in these is the WebUI's own.
        and wait.place.split()[-1] not in ("sample", "forward")
    )
    assert ours["_read"] == calls + 1, log
    # Indices, links, masks; motion at four sizes.
    assert ours["_send_together"] == 3 + 2 * 4, log
    # The schedule, noise of the reference pass, its two conditionings looked at, the record.
    assert ours.total() <= ours["_read"] + ours["_send_together"] + 5, ours


def test_hints_of_a_controlnet_are_sent_once_a_batch(device: torch.device, log: Log) -> None:
    class Network(nn.Module):
        def forward(self, x: Tensor, hint: Tensor) -> Tensor:
            return hint

    hints = torch.rand(2, 3, 4, 4)
    network = _PerFrame(Network(), hints)
    x, given = torch.zeros(4, 4, 2, 2).to(device), torch.zeros(4, 3, 4, 4).to(device).half()
    log.clear()
    found = [network(x=x, hint=given), network(x=x, hint=given), network(x=x[:2], hint=given)]
    assert len(log.waits) == 1
    expected = hints.half().float()
    for hint, chunks in zip(found, (2, 2, 1), strict=True):
        assert hint.dtype == torch.float16
        assert torch.equal(hint.float().cpu(), expected.repeat(chunks, 1, 1, 1))
    assert EXACT_BY_DTYPE[torch.float16] > (expected - hints).abs().max()
