"""The diffusers host on a device, from frames to frames."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fresco.flow.gmflow import GMFlow
from fresco.flow.network import GMFLOW, NetworkEstimator
from fresco.flow.occlusion import ring_flow
from fresco.guidance.ports import BatchResult
from fresco.hosts.diffusers import load
from fresco.hosts.diffusers.host import DiffusersHost
from fresco.hosts.diffusers.vae import LatentCodec, to_pixels, to_tensor
from fresco.metrics import Metrics
from fresco.options import from_dict
from fresco.progress import Progress, StageStatus
from fresco.run.guide import GuideMaker
from fresco.settings import FrescoSettings, SamplingSettings
from tests.helpers.strict_device import Log
from tests.helpers.tiny_models import build_tiny_pipeline, square_frames, tiny_host, tiny_request
from tests.helpers.tolerances import EXACT_BY_DTYPE

ALL: FrescoSettings = from_dict({
    "flow": {"estimator": "dis"},
    "guidance": {"background_smoothing": True, "optimization_iterations": 1,
                 "freeu_b1": 1.2, "freeu_s2": 0.9},
})
LEVELS = {"float32": 1, "float16": 4, "bfloat16": 8}
"""Grey levels between CPU and device; sums in another order are amplified by the optimisation."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    """The model as diffusers loads it.

    Before there is a strict device: beside one, transformers leaves some of its buffers unset.
    """
    settings = SamplingSettings(model=str(folder))
    return load._load_parts(settings, offline=True, dtype=torch.float32)


@pytest.fixture
def model(folder: Path, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is loaded already."""
    monkeypatch.setattr(load, "_load_parts", lambda *_, **__: copy.deepcopy(pipeline))
    return folder


def sample(
    host: DiffusersHost, settings: FrescoSettings | None,
    listen: Callable[[StageStatus], None] | None = None,
) -> BatchResult:
    request = tiny_request()
    guide = None
    if settings is not None:
        maker = GuideMaker.create(settings, host.device, host.model_sigmas)
        guide = maker.guide(request.frames, host.unet)
    with Progress(listen).stage("test", 3) as stage:
        return host.sample(request, guide, stage)


def latents_apart(one: BatchResult, other: BatchResult) -> float:
    """Mean difference at the last model call; images of an untrained model are nearly plain."""
    pair = one.carry.latents[-1], other.carry.latents[-1]
    return float((pair[0] - pair[1]).abs().mean())


def hosts_of(model: Path, device: torch.device, **changes: Any) -> list[DiffusersHost]:
    """On the CPU and on the device."""
    return [tiny_host(model, device=place, **changes) for place in ("cpu", str(device))]


def levels_apart(one: BatchResult, other: BatchResult) -> float:
    return float(np.abs(one.images.astype(float) - other.images).max())


def test_a_guided_batch_is_that_of_the_cpu_and_waits_twice_a_call(
    model: Path, device: torch.device, log: Log
) -> None:
    """A call: to see that its result is finite, and for the scheduler's noise."""
    here, there = hosts_of(model, device, dtype="float32", steps=3, strength=1.0)
    expected = sample(here, ALL)
    log.clear()
    marks: list[int] = []
    found = sample(there, ALL, lambda status: marks.append(len(log.waits)))
    assert levels_apart(expected, found) <= LEVELS["float32"]
    effect = latents_apart(expected, sample(here, None))
    assert latents_apart(expected, found) < EXACT_BY_DTYPE[torch.float32] < effect
    assert all(pair.device.type == "cpu" for pair in found.carry.latents)
    parts = [log.waits[first:last] for first, last in itertools.pairwise(marks)]
    assert not parts.pop(0)  # the number of calls is told before the first one
    assert len(parts) == 4  # to the end of the first call, two calls, and what comes after
    sent = [sum("guidance/sending" in wait.place for wait in part) for part in parts]
    assert sent == [2 * 4, 0, 0, 0], log  # motion, at four sizes
    # The images that are smoothed in the second call are looked at too.
    kinds = [sorted(wait.kind for wait in part) for part in parts[1:3]]
    assert kinds == [["read", "read", "to device"], ["read", "to device"]], log
    # Before and after: the start and its noise for the scheduler; the record and the result.
    assert sum(wait.kind == "to host" for wait in log.waits) == 4, log


def test_a_guided_batch_in_half_precision(model: Path, device: torch.device) -> None:
    """Without the optimisation: L1 with Adam amplifies rounding."""
    parts = dataclasses.replace(
        ALL.guidance, spatial_optimization=False, temporal_optimization=False
    )
    settings = dataclasses.replace(ALL, guidance=parts)
    dtype = "float16"
    hosts = hosts_of(model, device, dtype=dtype, steps=2, strength=1.0)
    expected, found = (sample(host, settings) for host in hosts)
    assert levels_apart(expected, found) <= LEVELS[dtype]
    assert latents_apart(expected, found) < EXACT_BY_DTYPE[getattr(torch, dtype)]


@pytest.mark.parametrize("dtype", LEVELS)
def test_the_vae_goes_there_and_back(pipeline: Any, device: torch.device, dtype: str) -> None:
    images = to_tensor(square_frames(2, 32), device)
    assert images.device == device
    rebuilt = []
    for place in (torch.device("cpu"), device):
        codec = LatentCodec(copy.deepcopy(pipeline.vae).to(place, getattr(torch, dtype)))
        generator = torch.Generator().manual_seed(0)
        latents = codec.encode(images.to(place), generator)
        assert latents.dtype == torch.float32
        rebuilt.append(to_pixels(codec.decode(latents)).astype(float))
    assert np.abs(rebuilt[0] - rebuilt[1]).max() <= LEVELS[dtype]


def test_flow_and_metrics_by_a_network_there(device: torch.device, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "gmflow.pth"
    torch.save({"model": GMFlow().state_dict()}, weights)
    frames = square_frames(3, 32)
    estimators = [NetworkEstimator(GMFLOW, weights, place) for place in ("cpu", device)]
    expected, found = (ring_flow(frames, estimator) for estimator in estimators)
    assert found.forward.device.type == "cpu"
    assert (found.forward - expected.forward).abs().max() < 1e-4
    metrics = [Metrics(estimator) for estimator in estimators]
    for measured in metrics:
        for frame in frames:
            measured.update(frame, {"result": frame})
    assert metrics[0].report() == metrics[1].report()
