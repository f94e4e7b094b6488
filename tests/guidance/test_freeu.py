"""FreeU against the official outputs, the Fourier transform, and its identity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fresco.guidance.freeu import damp_low_frequencies, scale_backbone
from tests.helpers.shared import golden, golden_cases, kept
from tests.helpers.tolerances import EXACT_BY_DTYPE, GUIDANCE_GOLDEN


@pytest.mark.parametrize("case", range(4))
def test_official_filter(case: int) -> None:
    arrays, note = golden("09_freeu", "freeu")
    given_case = note["fourier_cases"][case]
    result = damp_low_frequencies(
        torch.from_numpy(arrays[f"ff{case}_in"]), given_case["scale"],
        radius=given_case["threshold"],
    )
    wanted = torch.from_numpy(arrays[f"ff{case}_out"])
    torch.testing.assert_close(result, wanted, atol=GUIDANCE_GOLDEN, rtol=0)


@pytest.mark.parametrize(("channels", "backbone", "skip"), [(1280, 1.2, 0.9), (640, 1.5, 0.2)])
@pytest.mark.parametrize("case", golden_cases("09_freeu", "freeu"))
def test_official_scaling(case: str, channels: int, backbone: float, skip: float) -> None:
    arrays, note = golden("09_freeu", case)
    hidden, tail = (torch.from_numpy(arrays[f"up{channels}_{k}"]) for k in ("hidden", "skip"))
    joined = torch.cat([scale_backbone(hidden, backbone), damp_low_frequencies(tail, skip)], 1)
    name = f"up{channels}_cat"
    found = kept(note, name, joined.numpy())
    np.testing.assert_allclose(found, arrays[name], atol=GUIDANCE_GOLDEN, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 3))
def test_filter_equals_the_fourier_transform(height: int, width: int, factor: float) -> None:
    torch.manual_seed(height * 10 + width)
    x = torch.randn(2, 3, height, width)
    spectrum = torch.fft.fftshift(torch.fft.fft2(x), dim=(2, 3))
    rows = slice(max(0, height // 2 - 1), height // 2 + 1)
    columns = slice(max(0, width // 2 - 1), width // 2 + 1)
    spectrum[..., rows, columns] *= factor
    expected = torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(2, 3))).real
    torch.testing.assert_close(damp_low_frequencies(x, factor), expected, atol=2e-5, rtol=0)


def test_ones_return_the_same_tensor() -> None:
    x = torch.randn(1, 4, 3, 3)
    assert scale_backbone(x, 1.0) is x
    assert damp_low_frequencies(x, 1.0) is x


def test_a_constant_frame_is_left_alone() -> None:
    x = torch.randn(2, 4, 3, 3)
    x[0] = 0.5
    result = scale_backbone(x, 1.5)
    assert torch.equal(result[0], x[0])
    assert not torch.equal(result[1], x[1])
    assert torch.equal(result[1, 2:], x[1, 2:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("given", [torch.float32, "half"])
def test_a_hosts_autocast_does_not_reach_the_filter(
    dtype: torch.dtype, given: torch.dtype | str
) -> None:
    """In half precision the sum over 64 x 64 values overflows."""
    torch.manual_seed(0)
    x = (20 + torch.randn(1, 4, 64, 64)).to(dtype if given == "half" else torch.float32)
    expected = damp_low_frequencies(x, 0.2), scale_backbone(x, 1.4)
    with torch.autocast("cpu", dtype):
        found = damp_low_frequencies(x, 0.2), scale_backbone(x, 1.4)
    for one, other in zip(expected, found, strict=True):
        assert other.isfinite().all()
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 6)
    for work in (lambda y: scale_backbone(y, 1.4), lambda y: damp_low_frequencies(y, 0.3)):
        result = work(x.to(dtype))
        assert result.dtype == dtype
        assert (result.float() - work(x)).abs().mean() < EXACT_BY_DTYPE[dtype]
