"""Denoised estimates brought to agree along the flow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from fresco.flow.dis import DisEstimator
from fresco.flow.warp import warp
from fresco.guidance.consensus import (
    Consensus,
    Link,
    blur,
    link_frames,
    match_colours,
    shrink_link,
)
from fresco.guidance.ports import Step
from fresco.guidance.schedule import GuidanceSchedule
from fresco.guidance.smoothing import smooth_background
from fresco.settings import GuidanceSettings
from tests.helpers.guided import still_ring

SIZE = 24, 32
LEVELS = tuple(np.geomspace(0.03, 14.6, 1000).tolist())


def link_still(rows: int, *, carried: bool) -> tuple[Link, ...]:
    """Frames that are all the same."""
    torch.manual_seed(7)
    images = torch.nn.functional.interpolate(
        torch.rand(1, 3, 6, 8) * 255, size=SIZE, mode="bicubic").clamp(0, 255)
    return link_frames(images.expand(rows, -1, -1, -1), still_ring(rows, *SIZE), DisEstimator(),
                       carried=carried)


def make_estimates(rows: int) -> torch.Tensor:
    torch.manual_seed(3)
    return torch.rand(rows, 3, *SIZE) - 0.5


def test_a_batch_alone_moves_toward_its_neighbours() -> None:
    estimates = make_estimates(3)
    result = Consensus(link_still(3, carried=False), None).apply(estimates, 1.0)
    torch.testing.assert_close(result[0], estimates[:2].mean(dim=0), atol=1e-5, rtol=0)
    torch.testing.assert_close(result[1], estimates.mean(dim=0), atol=1e-5, rtol=0)


def test_finished_keyframes_stay_and_draw_the_others() -> None:
    """Row 2 sees both of them: the one that it meets at the border weighs most."""
    estimates, finished = make_estimates(4), make_estimates(2) / 2
    result = Consensus(link_still(4, carried=True), finished).apply(estimates, 1.0)
    assert torch.equal(result[:2], finished)
    wanted = (estimates[2] + 3 * finished[0] + 8 * finished[1] + estimates[3]) / 13
    torch.testing.assert_close(result[2], wanted, atol=0.02, rtol=0)


@pytest.mark.parametrize("rows", [3, 5])
def test_latents_come_near_to_those_of_finished_keyframes(rows: int) -> None:
    """All frames of the batch do, also where it has one new frame only; fine differences stay."""
    torch.manual_seed(4)
    consensus = Consensus(link_still(rows, carried=True), make_estimates(2))
    flat = torch.tensor([0.0, 0.0, 1.0, 2.0, 1.5])[:rows, None, None, None].expand(-1, 4, 3, 4)
    result = consensus.apply_to_latents(flat)
    assert torch.equal(result[:2], flat[:2])
    assert result[2:].max() < 0.25
    checks = torch.zeros(rows, 4, 6, 8)
    checks[2:, :, ::2, ::2] = checks[2:, :, 1::2, 1::2] = 1.0
    kept = consensus.apply_to_latents(checks)
    assert kept[2:, :, 2:-2, 2:-2].std() > 0.8 * checks[2:].std()


def test_one_keyframe_alone_stays_as_it_is() -> None:
    estimates = make_estimates(1)
    alone = Consensus(link_still(1, carried=False), None)
    torch.testing.assert_close(alone.apply(estimates, 1.0), estimates)
    assert torch.equal(alone.apply_to_latents(estimates), estimates)


def test_frames_with_other_words_are_linked_less() -> None:
    """So that a prompt of one keyframe is not evened out."""
    ring = still_ring(3, *SIZE)
    images = torch.full((3, 3, *SIZE), 90.0)
    told = link_frames(images, ring, DisEstimator(), carried=False, prompts=("a", "a", "a, rain"))
    plain = link_frames(images, ring, DisEstimator(), carried=False)
    shares = {(link.frame, link.other): (link.weight / same.weight).mean().item()
              for link, same in zip(told, plain, strict=True)}
    assert shares == {(0, 1): 1.0, (1, 0): 1.0, (1, 2): 0.25, (2, 1): 0.25}


def test_a_smaller_link_shows_the_same() -> None:
    """A sideways ramp that has moved by 8 pixels is moved back at an eighth of the size."""
    flow = torch.zeros(2, 64, 64)
    flow[0] = 8.0
    small = shrink_link(Link(0, 1, flow, torch.ones(1, 64, 64)), (8, 8))
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    torch.testing.assert_close(warp(ramp, small.flow[None])[..., :-1], ramp[..., :-1] + 1)
    assert torch.equal(small.weight, torch.ones(1, 8, 8))


def test_fine_differences_stay_where_they_are_not_wanted() -> None:
    estimates, finished = make_estimates(4), make_estimates(2) / 2
    consensus = Consensus(link_still(4, carried=True), finished)
    whole, coarse = (consensus.apply(estimates, share) - estimates for share in (1.0, 0.0))
    torch.testing.assert_close(coarse[2:], blur(whole[2:], 4.0), atol=1e-5, rtol=0)
    assert coarse[2:].std() < whole[2:].std() / 2


def test_what_is_hidden_or_looks_otherwise_changes_nothing() -> None:
    estimates = make_estimates(3)
    hidden = still_ring(3, *SIZE)
    hidden.forward_occlusion.fill_(1)
    hidden.backward_occlusion.fill_(1)
    dark = torch.stack([torch.full((3, *SIZE), float(level)) for level in (0, 90, 180)])
    for images, ring in ((dark * 0, hidden), (dark, still_ring(3, *SIZE))):
        links = link_frames(images, ring, DisEstimator(), carried=False)
        result = Consensus(links, None).apply(estimates, 1.0)
        torch.testing.assert_close(result, estimates, atol=1e-5, rtol=0)


def test_colours_follow_the_finished_keyframes() -> None:
    finished = make_estimates(2)
    estimates = torch.cat([finished, make_estimates(1)]) * 1.05 + 0.2
    result = match_colours(estimates, estimates[:2], finished)
    torch.testing.assert_close(result[:2], finished, atol=1e-3, rtol=0)
    limited = match_colours(estimates * 3, estimates[:2] * 3, finished)
    assert (limited[:2].std() / finished.std()).item() == pytest.approx(3 * 1.05 * 0.9, rel=0.01)


@pytest.mark.parametrize("count", [1, 2, 4, 10, 20])
def test_two_calls_at_most_and_never_the_last(count: int) -> None:
    schedule = GuidanceSchedule(GuidanceSettings(), LEVELS)
    timesteps = np.linspace(700, 1, count).round().astype(int)
    sigmas = [LEVELS[t] for t in timesteps]
    schedule.begin(sigmas)
    steps = [Step(i, count, sigma) for i, sigma in enumerate(sigmas)]
    chosen = [step for step in steps if schedule.agrees(step)]
    assert min(1, count - 1) <= len(chosen) <= 2
    assert steps[-1] not in chosen
    assert [step for step in steps if schedule.agrees_last(step)] == chosen[-1:]
    assert_falls([schedule.share_fine(step) for step in steps])
    steered = {step.index for step in steps if schedule.steers(step)}
    before = range(chosen[-1].index) if chosen else ()
    assert steered == {*before} - {step.index for step in chosen}


def test_latents_are_left_alone_where_noise_is_high() -> None:
    schedule = GuidanceSchedule(GuidanceSettings(), LEVELS)
    schedule.begin([LEVELS[t] for t in (951, 751, 701, 700, 300, 1)])
    found = [schedule.steers(Step(i, 6, LEVELS[t]))
             for i, t in enumerate((951, 751, 701, 700, 300, 1))]
    assert found == [False, False, False, True, False, False]


def assert_falls(shares: Sequence[float]) -> None:
    assert all(0 <= share <= 1 for share in shares)
    assert list(shares) == sorted(shares, reverse=True)


def test_smoothing_leaves_fixed_frames_and_follows_them() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 6, 5)
    result = smooth_background(x, still_ring(4, 6, 5), torch.ones(4, 1, 6, 5), fixed=2)
    assert torch.equal(result[:2], x[:2])
    torch.testing.assert_close(result[2], x[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(result[3], x[0], atol=1e-6, rtol=0)  # the ring is closed
