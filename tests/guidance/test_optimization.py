"""Feature optimisation against the official runs, autograd, and its own limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import plain
from benchmarks.operators import CountOperators
from fresco.flow.warp import warp
from fresco.guidance import gram, portions
from fresco.guidance.gram import normalize_tokens
from fresco.guidance.motion import make_feature_motion, pool_occlusion
from fresco.guidance.optimization import (
    Descent,
    FeatureLoss,
    OptimizationTarget,
    optimize_feature,
    restore_statistics,
)
from tests.helpers.guided import random_ring, still_ring, stored_ring
from tests.helpers.shared import FULL, golden, golden_cases, kept
from tests.helpers.tolerances import (
    EXACT_BY_DTYPE,
    GUIDANCE_GOLDEN,
    OPTIMIZATION_LOSS,
    OPTIMIZATION_MEAN,
    OPTIMIZATION_P99,
    OPTIMIZATION_PLAIN,
)

WEIGHT = 100.0
OFFICIAL = Descent(20, 0.2)
OPERATORS_AN_ITERATION = 21
"""Of a stage whose frames are worked on together: 12 of the spatial term, 4 of the temporal one,
5 of Adam."""


def _both_chunks(
    x: Tensor, target: list[OptimizationTarget], descent: Descent, **rest: bool
) -> tuple[Tensor, Tensor]:
    """Result and loss curve of two chunks, one after the other."""
    results, curves = [], []
    for chunk, wanted in zip(x.chunk(2), target, strict=True):
        curve: list[float] = []
        results.append(optimize_feature(chunk, wanted, descent, on_loss=curve.append, **rest))
        curves.append(curve)
    return torch.cat(results), torch.tensor(curves, dtype=torch.float64).sum(0)


def _targets(
    source: Tensor | None, motion: object, weight: float = WEIGHT
) -> list[OptimizationTarget]:
    chunks = (None, None) if source is None else normalize_tokens(source).chunk(2)
    return [OptimizationTarget(c, motion, weight) for c in chunks]


@pytest.mark.parametrize("case", golden_cases("05_optimize", "car_3x3", "car_6x6", "car_12x12"))
@pytest.mark.parametrize("part", ["temporal", "spatial", "both"])
def test_official_runs(case: str, part: str) -> None:
    arrays, note = golden("05_optimize", case)
    ring = stored_ring(golden("05_optimize", "car_3x3")[0])
    x, source = (torch.from_numpy(arrays[k]) for k in ("sample", "ref_feature"))
    motion = make_feature_motion(ring, (x.shape[2], x.shape[3])) if part != "spatial" else None
    targets = _targets(source if part != "temporal" else None, motion)
    for restore, name in ((False, "raw"), (True, "out")):
        result, curve = _both_chunks(x, targets, OFFICIAL, restore=restore)
        output = f"{name}_{part}"
        difference = np.abs(kept(note, output, result.numpy()) - arrays[output])
        assert difference.mean() < OPTIMIZATION_MEAN
        assert np.quantile(difference, 0.99) < OPTIMIZATION_P99
        np.testing.assert_allclose(curve, arrays[f"loss_{part}"], rtol=OPTIMIZATION_LOSS)


def whole_run_levels() -> list[tuple[str, int]]:
    """Levels of the decoder whose features a case has; the large ones are beside the repository."""
    return [(case, level) for case in golden_cases("10_e2e", "car_128")
            for level in ((0, 1, 2) if case.startswith(FULL) else (0, 1))]


@pytest.mark.parametrize(("case", "level"), whole_run_levels())
def test_official_first_step_of_a_whole_run(case: str, level: int) -> None:
    arrays, _ = golden("10_e2e", case)
    x, wanted, gram = (
        torch.from_numpy(arrays[k])
        for k in (f"opt_step0_layer{level}_in", f"opt_step0_layer{level}_out", f"gram_layer{level}")
    )
    # Only a Gram matrix is stored; any tokens with these products serve.
    values, vectors = torch.linalg.eigh(gram.double())
    tokens = (vectors * values.clamp(min=0).sqrt()[:, None]).float()
    motion = make_feature_motion(stored_ring(arrays), (x.shape[2], x.shape[3]))
    targets = [OptimizationTarget(c, motion, WEIGHT) for c in tokens.chunk(2)]
    result, _ = _both_chunks(x, targets, OFFICIAL)
    assert (result - wanted).abs().mean() < OPTIMIZATION_MEAN


def test_official_statistics() -> None:
    arrays, _ = golden("05_optimize", "adain_dilate")
    result = restore_statistics(
        torch.from_numpy(arrays["content"]), torch.from_numpy(arrays["style"])
    )
    torch.testing.assert_close(
        result, torch.from_numpy(arrays["out"]), atol=GUIDANCE_GOLDEN, rtol=0
    )


PARTS = [(True, False), (False, True), (True, True)]


def _case(
    frames: int, spatial: bool, temporal: bool, dtype: torch.dtype = torch.float64,
    size: tuple[int, int] = (6, 5),
) -> tuple[Tensor, Tensor | None, object, object]:
    """Feature and source of two chunks, motion, and the ring at the feature's size."""
    torch.manual_seed(frames)
    x, source = torch.randn(2, 2 * frames, 7, *size, dtype=dtype)
    motion = make_feature_motion(random_ring(frames, *size), size, dtype=dtype)
    return x, source if spatial else None, motion if temporal else None, motion.flow


@pytest.mark.parametrize(("spatial", "temporal"), PARTS)
@pytest.mark.parametrize("frames", [2, 3, 5])
def test_gradient_equals_autograd_in_float64(frames: int, spatial: bool, temporal: bool) -> None:
    x, source, motion, ring = _case(frames, spatial, temporal)
    x.requires_grad_(True)
    loss = torch.zeros((), dtype=x.dtype)
    if temporal:
        loss = loss + plain.temporal_loss(x, ring)
    if spatial:
        loss = loss + WEIGHT * (plain.gram(x) - plain.gram(source)).abs().mean()
    loss.backward()
    values: list[Tensor] = []
    found = torch.empty_like(x.detach().flatten(2).transpose(1, 2))
    for number, (chunk, target) in enumerate(
        zip(x.detach().chunk(2), _targets(source, motion), strict=True)
    ):
        tokens = chunk.flatten(2).transpose(1, 2).contiguous()
        for part, gradient in FeatureLoss(tokens, target).gradients(values):
            found[number * frames :][part] = gradient
    torch.testing.assert_close(
        found.transpose(1, 2).reshape(x.shape), x.grad, atol=1e-12, rtol=1e-9
    )
    assert float(torch.stack(values).sum()) == pytest.approx(float(loss.detach()), rel=1e-10)


@pytest.mark.parametrize(("spatial", "temporal"), PARTS)
@pytest.mark.parametrize("frames", [2, 4])
def test_whole_run_equals_the_plain_version(frames: int, spatial: bool, temporal: bool) -> None:
    x, source, motion, ring = _case(frames, spatial, temporal)
    curve: list[float] = []
    expected = plain.optimize(
        x, plain.gram(source) if source is not None else None, ring if temporal else None,
        spatial_weight=WEIGHT, iterations=20, rate=0.2, on_loss=curve.append,
    )
    result, losses = _both_chunks(x, _targets(source, motion), OFFICIAL, restore=False)
    torch.testing.assert_close(result, expected, atol=OPTIMIZATION_PLAIN, rtol=0)
    np.testing.assert_allclose(losses, curve, rtol=1e-7)


@pytest.mark.parametrize("limits", [
    {"rows": 7}, {"rows": 29}, {"rows": 16, "frames": 430}, {"kept": 0}, {"kept": 1},
    {"rows": 11, "kept": 0.5}, {"frames": 430}, {"frames": 1}, {"strip": 1, "frames": 210},
    {"channels": 400}, {"channels": 200, "frames": 1}, {"frames": 1, "rows": 8, "kept": 0.7},
], ids=str)
@pytest.mark.parametrize("frames", [2, 3])
def test_parts_of_the_work_make_up_the_whole(
    monkeypatch: pytest.MonkeyPatch, limits: dict[str, int], frames: int
) -> None:
    x, source, _, ring = _case(frames, True, True)
    monkeypatch.setattr(portions, "PROCESSOR", portions.CARD)
    motion = make_feature_motion(ring, (6, 5), dtype=x.dtype)
    whole, losses = _both_chunks(x, _targets(source, motion), OFFICIAL)
    monkeypatch.setattr(portions, "PROCESSOR", dataclasses.replace(portions.CARD, **limits))
    groups = portions.split_frames(frames, x[0].numel(), x.device)
    motion = make_feature_motion(ring, (6, 5), dtype=x.dtype, groups=groups)
    parts, again = _both_chunks(x, _targets(source, motion), OFFICIAL)
    torch.testing.assert_close(parts, whole, atol=OPTIMIZATION_PLAIN, rtol=0)
    torch.testing.assert_close(again, losses)


def test_signs_that_kept_cosines_leave_open_are_found_anew() -> None:
    """Cosines in 16 bits differ by up to half a step: here all differences are smaller."""
    torch.manual_seed(0)
    source = torch.randn(1, 7, 8, 8, dtype=torch.float64)
    tokens = normalize_tokens(source + 1e-6 * torch.randn_like(source))
    found = []
    for share in (portions.PROCESSOR.kept, 0):
        with pytest.MonkeyPatch.context() as patch:
            few = dataclasses.replace(portions.PROCESSOR, rows=16, kept=share)
            patch.setattr(portions, "PROCESSOR", few)
            patch.setattr(gram, "MOST_DOUBTFUL", 1)
            term = gram.GramTerm(tokens, normalize_tokens(source), 1.0, [slice(0, 1)])
            found.append(torch.empty_like(tokens))
            term.write(slice(0, 1), found[-1], None)
    torch.testing.assert_close(*found, atol=1e-12, rtol=0)


def test_tokens_that_were_normalised_in_place_are_given_back() -> None:
    torch.manual_seed(0)
    tokens = 100 * torch.randn(2, 9, 5, dtype=torch.float64)
    tokens[1, 4] = 0  # has no direction, and stays
    before, pull = tokens.clone(), torch.empty_like(tokens)
    reference = torch.nn.functional.normalize(torch.randn_like(tokens), dim=-1)
    gram.GramTerm(tokens, reference, 1.0, [slice(0, 2)]).write(slice(0, 2), pull, None)
    torch.testing.assert_close(tokens, before, atol=0, rtol=1e-15)
    assert not pull[1, 4].any()


def test_operators_of_an_iteration_do_not_grow_with_the_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the coarse stages a graphics card does little but begin operators."""
    monkeypatch.setattr(portions, "PROCESSOR", portions.CARD)
    counts = {}
    for frames in (3, 8):
        x, source, motion, _ = _case(frames, True, True, torch.float32)
        target = _targets(source, motion)[0]
        for iterations in (1, 2):
            with CountOperators() as counted:
                optimize_feature(x[:frames], target, Descent(iterations, 0.2))
            counts[frames, iterations] = counted.total
    assert counts[3, 2] == counts[8, 2]
    assert counts[8, 2] - counts[8, 1] <= OPERATORS_AN_ITERATION


def test_a_feature_at_its_target_loses_nothing() -> None:
    x = torch.randn(1, 7, 6, 5, dtype=torch.float64).repeat(3, 1, 1, 1)
    motion = make_feature_motion(still_ring(3, 6, 5), (6, 5), dtype=torch.float64)
    tokens = x.flatten(2).transpose(1, 2).contiguous()
    losses: list[Tensor] = []
    target = OptimizationTarget(normalize_tokens(x), motion, WEIGHT)
    list(FeatureLoss(tokens, target).gradients(losses))
    assert float(torch.stack(losses).sum()) < 1e-12


def test_the_loss_falls() -> None:
    x, source, motion, _ = _case(4, True, True, torch.float32)
    _, curve = _both_chunks(x, _targets(source, motion), OFFICIAL)
    assert curve[-1] < 0.5 * curve[0]


@pytest.mark.parametrize("plain_statistics", [False, True])
def test_statistics_are_restored(plain_statistics: bool) -> None:
    x, source, motion, _ = _case(3, True, True)
    result, _ = _both_chunks(
        x, _targets(source, motion), OFFICIAL, plain_statistics=plain_statistics
    )
    torch.testing.assert_close(result.mean((2, 3)), x.mean((2, 3)), atol=1e-6, rtol=0)
    wanted = x.var((2, 3)) + (0 if plain_statistics else 1)
    torch.testing.assert_close(result.var((2, 3)), wanted, atol=1e-3, rtol=1e-3)


def test_a_single_frame_has_no_temporal_term() -> None:
    x, source, motion, _ = _case(1, True, True)
    alone, _ = _both_chunks(x, _targets(source, None), OFFICIAL)
    both, _ = _both_chunks(x, _targets(source, motion), OFFICIAL)
    assert torch.equal(alone, both)


def test_one_token_a_frame() -> None:
    x, source, motion, _ = _case(3, True, True, torch.float32, (1, 1))
    result, _ = _both_chunks(x, _targets(source, motion), OFFICIAL)
    assert torch.isfinite(result).all()


def test_zero_tokens_stay_finite_and_get_no_spatial_pull() -> None:
    x, source, _, _ = _case(2, True, False, torch.float32)
    x[:, :, 2] = 0
    source[:, :, 3] = 0
    result, _ = _both_chunks(x, _targets(source, None), OFFICIAL, restore=False)
    assert torch.isfinite(result).all()
    assert not result[:, :, 2].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_optimised_in_float32(dtype: torch.dtype) -> None:
    x, source, motion, _ = _case(3, True, True, torch.float32)
    x = x.to(dtype)
    result, _ = _both_chunks(x, _targets(source, motion), OFFICIAL)
    exact, _ = _both_chunks(x.float(), _targets(source, motion), OFFICIAL)
    assert result.dtype == dtype
    assert torch.equal(result, exact.to(dtype))


def test_input_is_left_alone() -> None:
    for size in ((6, 5), (1, 1)):
        x, source, motion, _ = _case(2, True, True, torch.float32, size)
        before = x.clone()
        _both_chunks(x, _targets(source, motion), OFFICIAL)
        assert torch.equal(x, before)


def test_inference_mode_autocast_and_gradients_change_nothing() -> None:
    x, source, motion, _ = _case(3, True, True, torch.float32)
    targets = _targets(source, motion)
    expected, _ = _both_chunks(x, targets, OFFICIAL)
    with torch.inference_mode():
        inside, _ = _both_chunks(x.clone(), targets, OFFICIAL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, _ = _both_chunks(x, targets, OFFICIAL)
    tracked, _ = _both_chunks(x.clone().requires_grad_(True), targets, OFFICIAL)
    assert all(torch.equal(expected, other) for other in (inside, cast, tracked))
    assert not tracked.requires_grad


def test_residual_and_its_adjoint_are_the_warp() -> None:
    torch.manual_seed(0)
    motion = make_feature_motion(random_ring(3, 6, 5), (6, 5), dtype=torch.float64)
    value = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    ring, (disagreement,) = motion.flow, motion.disagreements
    following = value.roll(-1, 0)
    back = (1 - ring.backward_occlusion)[:, None] * (following - warp(value, ring.backward))
    ahead = (1 - ring.forward_occlusion)[:, None] * (value - warp(following, ring.forward))
    expected = torch.cat([back, ahead]).flatten(2).mT.flatten(0, 1)
    tokens = value.flatten(2).mT.flatten(0, 1)
    found = disagreement.residual.apply(tokens)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    # <R x, y> = <x, R^T y>
    other = torch.randn_like(found)
    left, right = (found * other).sum(), (tokens * disagreement.adjoint.apply(other)).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-10)


def test_devices_without_weighted_gathers_add_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    motion = make_feature_motion(random_ring(2, 6, 5), (6, 5))
    gather, tokens = motion.disagreements[0].residual, torch.randn(60, 4)
    expected = gather.apply(tokens)
    monkeypatch.setattr("fresco.guidance.motion.GATHERING_DEVICES", ())
    torch.testing.assert_close(
        gather.apply(tokens), expected, atol=EXACT_BY_DTYPE[torch.float32], rtol=0
    )


def test_one_occluded_pixel_occludes_its_cell() -> None:
    occlusion = torch.zeros(1, 20, 16)
    occlusion[0, 19, 9] = 1
    pooled = pool_occlusion(occlusion, (3, 2))
    assert pooled.tolist() == [[[0, 0], [0, 0], [0, 1]]]
