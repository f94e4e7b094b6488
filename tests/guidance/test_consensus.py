"""Denoised estimates brought to agree along the flow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from fresco.flow.dis import DisEstimator
from fresco.guidance.consensus import Consensus, Link, blur, link_frames, match_colours
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
    """Row 2 sees both of them, with twice the weight of row 3."""
    estimates, finished = make_estimates(4), make_estimates(2) / 2
    result = Consensus(link_still(4, carried=True), finished).apply(estimates, 1.0)
    assert torch.equal(result[:2], finished)
    wanted = (estimates[2] + 2 * finished.sum(dim=0) + estimates[3]) / 6
    torch.testing.assert_close(result[2], wanted, atol=0.02, rtol=0)


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
