"""Flow that is not finite is occluded, and spoils nothing around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fresco.flow.cache import CachedEstimator
from fresco.flow.correspondence import trace_chains
from fresco.flow.interface import FlowEstimator
from fresco.flow.motion import estimate_motion
from fresco.flow.occlusion import check_consistency, judge_pairs, ring_flow
from fresco.guidance.motion import make_feature_motion
from fresco.guidance.saliency import compute_motion_saliency
from fresco.guidance.smoothing import grow_occlusions, smooth_background
from fresco.metrics import Metrics

HOLE = (slice(6, 10), slice(8, 12))
BROKEN = (float("nan"), float("inf"), float("-inf"))


class Holed:
    """Nothing moves, and in a part of the frame the flow is broken."""

    name, note, device = "holed", "a broken estimator", "cpu"

    def __init__(self, value: float, *, only_x: bool = False) -> None:
        self.fingerprint = self.former_fingerprint = f"holed {value}"
        self._value, self._planes = value, slice(0, 1 if only_x else 2)

    def estimate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        forward, backward = source.new_zeros(2, len(source), 2, *source.shape[-2:])
        for flow in (forward, backward):
            flow[:, self._planes, HOLE[0], HOLE[1]] = self._value
        return forward, backward


def frames(count: int, side: int = 32) -> np.ndarray:
    random = np.random.default_rng(0).integers(60, 200, (1, side, side, 3))
    return np.repeat(random, count, axis=0).astype(np.uint8)


@pytest.mark.parametrize("only_x", [False, True])
@pytest.mark.parametrize("value", BROKEN)
def test_it_is_occluded_and_becomes_zero(value: float, only_x: bool) -> None:
    images = torch.full((1, 3, 32, 32), 100.0)
    flows = Holed(value, only_x=only_x).estimate(images, images)
    found = judge_pairs(images, images, *flows)
    for flow, mask in ((found.forward, found.forward_occlusion),
                       (found.backward, found.backward_occlusion)):
        assert torch.equal(flow, torch.zeros(1, 2, 32, 32))
        assert mask[0][HOLE].all()
        mask[0, 5:11, 7:13] = 0  # a pixel around it may be lost too
        assert not mask.any()


@pytest.mark.parametrize("value", BROKEN)
def test_what_leads_to_it_is_occluded(value: float) -> None:
    """Four pixels to the right of every pixel nothing is known of the way back."""
    forward, backward = torch.zeros(2, 1, 2, 32, 32)
    forward[:, 0] = 4
    backward[:, 0] = -4
    backward[0, :, HOLE[0], HOLE[1]] = value
    missed, other = check_consistency(forward, backward)
    assert missed[0, HOLE[0], 4:8].all()
    assert not missed[0, :, 14:28].any()
    assert other[0][HOLE].all()
    assert not other[0, :, 14:].any()


@pytest.mark.parametrize("value", BROKEN)
@pytest.mark.parametrize("cached", [False, True])
def test_all_that_is_made_of_it_is_finite(value: float, cached: bool, tmp_path: Path) -> None:
    estimator: FlowEstimator = Holed(value)
    if cached:
        CachedEstimator(estimator, tmp_path).estimate(torch.zeros(1, 3, 8, 12),
                                                      torch.zeros(1, 3, 8, 12))
        estimator = CachedEstimator(estimator, tmp_path)
    images = frames(3)
    ring = ring_flow(images, estimator)
    for part in (ring.forward, ring.backward, ring.forward_occlusion):
        assert part.isfinite().all()
    motion = make_feature_motion(ring, (4, 4))
    assert len(motion.disagreements) == 1
    assert motion.disagreements[0].residual.weight.isfinite().all()
    assert motion.disagreements[0].adjoint.weight.isfinite().all()
    assert compute_motion_saliency(ring).isfinite().all()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    everything = torch.ones(3, 1, 32, 32)
    assert smooth_background(pixels, grow_occlusions(ring), everything).isfinite().all()
    chains = trace_chains(pixels, ring, 8)
    assert chains.to_first.sort(dim=1).values.equal(torch.arange(16).expand(3, -1))
    moved = estimate_motion(images[0], images[1], estimator)
    assert moved.forward_occlusion[HOLE].all()
    assert moved.backward_occlusion[HOLE].all()
    assert np.isfinite(moved.forward).all()
    metrics = Metrics(estimator)
    for frame in images:
        metrics.update(frame, {"result": frame})
    assert metrics.report()["result"]["warp_error"] == 0


def test_a_broken_pair_on_disk_is_estimated_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Stored by a version that did not look."""
    from fresco.workspace import read_tensors, write_tensors

    cached = CachedEstimator(Holed(float("nan")), tmp_path)
    images = torch.full((1, 3, 32, 32), 100.0)
    whole = cached.estimate_with_occlusion(images, images)
    path = next(tmp_path.glob("*.safetensors"))
    stored = read_tensors(path)
    assert stored is not None
    write_tensors(path, stored | {"forward": torch.full((1, 2, 32, 32), torch.nan).half()})
    again = cached.estimate_with_occlusion(images, images)
    assert f"{path} is damaged" in caplog.text
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))
