"""Subject masks: made scenes, the official growth, and the network where its file is at hand."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fresco.errors import WeightsError
from fresco.flow.dis import DisEstimator
from fresco.flow.occlusion import BidirectionalFlow, ring_flow
from fresco.guidance.saliency import (
    U2NetP,
    compute_motion_saliency,
    compute_saliency,
    estimate_subject_probability,
    fit_camera_motion,
    make_planar_terms,
    mark_background,
)
from fresco.settings import FlowSettings
from fresco.weights import U2NETP, find_weights, weights_folder
from tests.helpers.motion_scenes import moving_square, texture
from tests.helpers.shared import golden
from tests.helpers.tolerances import EGNET_SALIENCY, EXACT_BY_DTYPE, SUBJECT_OVERLAP


def plain_background(probability: np.ndarray) -> np.ndarray:
    """Pixel by pixel, borders repeated."""
    padded = np.pad(probability, 3, mode="edge")
    grown = np.zeros_like(probability)
    for y, x in np.ndindex(*probability.shape):
        grown[y, x] = min(padded[y:y + 7, x:x + 7].sum(), 1)
    return 1 - grown


def test_growth_is_a_clamped_box_sum() -> None:
    probability = np.random.default_rng(0).random((9, 13)) / 30
    found = mark_background(torch.from_numpy(probability)[None, None])[0, 0].numpy()
    expected = plain_background(probability)
    assert 0 < expected.mean() < 1
    np.testing.assert_allclose(found, expected, atol=EXACT_BY_DTYPE[torch.float64])


def test_growth_is_the_official_one() -> None:
    arrays, _ = golden("08_egnet", "car")
    found = mark_background(torch.from_numpy(arrays["sigmoid"]))
    assert np.abs(found.numpy() - arrays["saliency"]).max() <= EGNET_SALIENCY


def plane(rows: int, columns: int, parameters: Tensor) -> Tensor:
    along_x, along_y = make_planar_terms(rows, columns)
    return torch.stack((along_x @ parameters, along_y @ parameters)).view(1, 2, rows, columns)


def test_a_planes_motion_is_found_under_a_third_of_outliers() -> None:
    parameters = torch.tensor([5.0, 1.0, -2.0, 3.0, 0.5, 1.5, 0.8, -0.6], dtype=torch.float64)
    flow = plane(24, 32, parameters)
    flow[:, :, 6:, 8:20] += 9
    found, noise = fit_camera_motion(flow, torch.ones(1, 24, 32))
    assert (found[0] - parameters).abs().max() < 0.05
    assert float(noise) < 0.05


@pytest.mark.parametrize("pan", [0, 3, -4])
def test_a_square_against_the_camera_is_the_subject(pan: int) -> None:
    _, flow, square = moving_square(count=4, step=6, pan=pan)
    mask = compute_motion_saliency(flow)[:, 0].numpy()
    assert mask.shape == square.shape
    assert (mask[square] < 0.5).mean() > SUBJECT_OVERLAP
    assert (mask[~square] > 0.5).mean() > SUBJECT_OVERLAP


def test_an_estimated_flow_shows_the_square_too() -> None:
    frames, _, square = moving_square(count=4, step=6, pan=-3)
    mask = compute_motion_saliency(ring_flow(frames, DisEstimator()))[:, 0].numpy()
    assert (mask[square] < 0.5).mean() > SUBJECT_OVERLAP
    assert (mask[~square] > 0.5).mean() > SUBJECT_OVERLAP


def test_a_camera_alone_shows_no_subject() -> None:
    flow = plane(64, 96, torch.tensor([4.0, 2, -1, 1, 1, 3, 1, 1], dtype=torch.float64)).float()
    none = torch.zeros(3, 64, 96)
    ring = BidirectionalFlow(flow.repeat(3, 1, 1, 1), -flow.repeat(3, 1, 1, 1), none, none)
    assert compute_motion_saliency(ring).min() > 1 - 1e-3


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (7, 90)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_count_and_size_has_a_mask(count: int, size: tuple[int, int]) -> None:
    frames = np.stack([texture(*size)] * count)
    mask = compute_motion_saliency(ring_flow(frames, DisEstimator()))
    assert mask.shape == (count, 1, *size)
    assert ((mask >= 0) & (mask <= 1)).all()
    if count == 1:
        assert (mask == 1).all()


def test_the_pair_that_closes_the_ring_is_not_asked() -> None:
    _, flow, _ = moving_square(count=3, step=6)
    wild = flow.forward.clone(), flow.backward.clone()
    for part in wild:
        part[-1] = 40 * torch.randn(part[-1].shape, generator=torch.Generator().manual_seed(0))
    other = BidirectionalFlow(*wild, flow.forward_occlusion, flow.backward_occlusion)
    assert torch.equal(estimate_subject_probability(flow), estimate_subject_probability(other))


def test_motion_is_the_choice_that_needs_nothing(tmp_path: Path) -> None:
    frames, flow, _ = moving_square(count=2, step=6)
    settings = FlowSettings(weights_dir=str(tmp_path), offline=True)
    chosen = compute_saliency(frames, flow, "motion", settings)
    assert torch.equal(chosen, compute_motion_saliency(flow))


def test_u2netp_without_its_file_says_what_to_fetch(tmp_path: Path) -> None:
    frames, flow, _ = moving_square(count=2, step=6)
    settings = FlowSettings(weights_dir=str(tmp_path), offline=True)
    with pytest.raises(WeightsError, match=U2NETP.name):
        compute_saliency(frames, flow, "u2netp", settings)


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(hashlib.sha256(b"").digest())
    with pytest.raises(WeightsError, match=r"net\.onnx is not a network"):
        U2NetP(tmp_path / "net.onnx")


def test_u2netp_sees_the_car() -> None:
    path = find_weights(U2NETP, weights_folder())
    if path is None:
        pytest.skip(f"{U2NETP.name} is not in {weights_folder()} (set FRESCO_WEIGHTS)")
    arrays, _ = golden("03_flow_masks", "car_192x192")
    mask = U2NetP(path)(arrays["frames_rgb_u8"][:1])
    assert mask.shape == (1, 1, 192, 192)
    assert mask[:, :, 110:140, 120:160].mean() < 0.2  # the car
    assert mask[:, :, :40].mean() > 0.9  # the mountains
