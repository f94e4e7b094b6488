"""Background smoothing against the official outputs, and what it must leave alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fresco.guidance.motion import resize_ring
from fresco.guidance.smoothing import (
    OCCLUSION_REACH,
    grow,
    grow_occlusions,
    smooth_background,
)
from tests.helpers.guided import random_ring, still_ring, stored_ring
from tests.helpers.shared import golden, golden_cases, kept
from tests.helpers.tolerances import EXACT_BY_DTYPE, GUIDANCE_GOLDEN

WARPED = golden_cases("05_optimize", "warp_tensor_car")


@pytest.mark.parametrize("scale", [8, 16, 64])
@pytest.mark.parametrize("case", WARPED)
def test_official_features(case: str, scale: int) -> None:
    arrays, _ = golden("05_optimize", case)
    x, saliency = torch.from_numpy(arrays[f"in_s{scale}"]), torch.from_numpy(arrays["saliency"])
    ring = resize_ring(stored_ring(arrays), (x.shape[2], x.shape[3]))
    result = torch.cat([smooth_background(chunk, ring, saliency) for chunk in x.chunk(2)])
    wanted = torch.from_numpy(arrays[f"out_s{scale}"])
    torch.testing.assert_close(result, wanted, atol=GUIDANCE_GOLDEN, rtol=0)


@pytest.mark.parametrize("case", WARPED)
def test_official_images(case: str) -> None:
    arrays, note = golden("05_optimize", case)
    result = smooth_background(
        torch.from_numpy(arrays["in_s1"]), grow_occlusions(stored_ring(arrays)),
        torch.from_numpy(arrays["saliency"]),
    )
    found = kept(note, "out_s1", result.numpy())
    np.testing.assert_allclose(found, arrays["out_s1"], atol=GUIDANCE_GOLDEN, rtol=0)


@pytest.mark.parametrize("case", golden_cases("06_step", "step_car"))
def test_official_denoising_step(case: str) -> None:
    arrays, note = golden("06_step", case)
    small = torch.from_numpy(arrays["c2_image_before"])
    images = small.repeat_interleave(8, 2).repeat_interleave(8, 3)
    result = smooth_background(
        images, grow_occlusions(stored_ring(arrays)), torch.from_numpy(arrays["saliency"])
    )
    found = kept(note, "c2_image_after", result.numpy())
    np.testing.assert_allclose(found, arrays["c2_image_after"], atol=GUIDANCE_GOLDEN, rtol=0)


@pytest.mark.parametrize("side", [7, OCCLUSION_REACH])
def test_official_growth(side: int) -> None:
    arrays, _ = golden("05_optimize", "adain_dilate")
    grown = grow(torch.from_numpy(arrays["dilate_in"])[:, 0], side)
    wanted = torch.from_numpy(arrays[f"dilate{side}_out"])[:, 0]
    torch.testing.assert_close(grown, wanted, atol=GUIDANCE_GOLDEN, rtol=0)


def test_a_still_background_becomes_the_first_frames() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 6, 5)
    result = smooth_background(x, still_ring(4, 6, 5), torch.ones(4, 1, 6, 5))
    torch.testing.assert_close(result, x[:1].expand_as(x), atol=1e-6, rtol=0)


def test_the_subject_is_left_alone() -> None:
    torch.manual_seed(1)
    x = torch.randn(3, 3, 8, 8)
    saliency = torch.ones(3, 1, 8, 8)
    saliency[..., 2:6, 2:6] = 0
    result = smooth_background(x, still_ring(3, 8, 8), saliency)
    assert torch.equal(result[..., 2:6, 2:6], x[..., 2:6, 2:6])
    assert not torch.equal(result, x)


def test_nothing_happens_where_all_is_occluded_or_alone() -> None:
    torch.manual_seed(2)
    x = torch.randn(3, 3, 6, 5)
    ring = still_ring(3, 6, 5)
    ring.backward_occlusion.fill_(1)
    ring.forward_occlusion.fill_(1)
    assert torch.equal(smooth_background(x, ring, torch.ones(3, 1, 6, 5)), x)
    single = smooth_background(x[:1], still_ring(1, 6, 5), torch.ones(1, 1, 6, 5))
    assert torch.equal(single, x[:1])


def test_input_and_dtype_are_kept() -> None:
    torch.manual_seed(3)
    ring, saliency = random_ring(3, 6, 5), torch.rand(3, 1, 12, 10)
    x = torch.randn(3, 4, 6, 5)
    before, half = x.clone(), x.half()
    result = smooth_background(x, ring, saliency)
    assert torch.equal(x, before)
    rounded = smooth_background(half, ring, saliency)
    assert rounded.dtype == torch.float16
    assert (rounded.float() - result).abs().mean() < EXACT_BY_DTYPE[torch.float16]
