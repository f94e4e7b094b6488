"""The guide as a host meets it: chunks, steps, parts switched alone, and refusals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fresco.errors import HostError
from fresco.guidance.guide import BatchGuidance, FrescoGuide
from fresco.guidance.ports import Chunk, Rows, Site, Step
from fresco.settings import GuidanceSettings
from tests.helpers.guided import Linears, random_ring, sd15_sigmas

SIGMAS = sd15_sigmas()
HEIGHT, WIDTH = 64, 48
SITE = Site(3, 0)
OFF = GuidanceSettings(
    spatial_attention=False, cross_frame_attention=False, temporal_attention=False,
    spatial_optimization=False, temporal_optimization=False,
)
ALL = GuidanceSettings(background_smoothing=True, optimization_iterations=3,
                       freeu_b1=1.2, freeu_s1=0.9)
PARTS = (
    "spatial_attention", "cross_frame_attention", "temporal_attention", "spatial_optimization",
    "temporal_optimization", "background_smoothing",
)
BOTH: tuple[Chunk, ...] = ("negative", "positive")


def _guide(settings: GuidanceSettings, frames: int = 3) -> FrescoGuide:
    torch.manual_seed(frames)
    ring = random_ring(frames, HEIGHT, WIDTH)
    for occlusion in (ring.forward_occlusion, ring.backward_occlusion):
        occlusion[:, 20:] = 0  # a scattered fifth would occlude every cell of the coarse stages
    batch = BatchGuidance.build(
        255 * torch.rand(frames, 3, HEIGHT, WIDTH), ring,
        torch.rand(frames, 1, 32, 24), settings, "cpu",
    )
    return FrescoGuide(batch, settings, SIGMAS)


def _inputs(frames: int, chunks: int = 2) -> tuple[Tensor, Tensor]:
    """Decoder input [rows, 6, 4, 3] and attention input [rows, 48, 8]."""
    torch.manual_seed(frames + 10)
    return torch.randn(chunks * frames, 6, 4, 3), torch.randn(chunks * frames, 48, 8)


def _capture(guide: FrescoGuide, frames: int, chunks: Sequence[Chunk] = BOTH) -> None:
    h, x = _inputs(frames, len(chunks))
    rows = Rows(frames, tuple(chunks))
    with guide.capturing():
        assert guide.decoder_entry(0, h.flip(0), rows) is not None
        guide.self_attention(SITE, x.flip(0), Linears(8, 2), rows)


def _at(guide: FrescoGuide, timestep: int, index: int = 0) -> None:
    guide.begin([SIGMAS[951], SIGMAS[timestep]])
    guide.step(Step(index, 2, SIGMAS[951] if index == 0 else SIGMAS[timestep]))


def _call(guide: FrescoGuide, h: Tensor, x: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    torch.manual_seed(99)
    attended = guide.self_attention(SITE, x, Linears(8, 2), rows)
    assert attended is not None
    entered = guide.decoder_entry(0, h, rows)
    return torch.cat(guide.decoder_block(0, entered, h, rows), 1), attended


def _are(pair: tuple[Tensor, Tensor], first: Tensor, second: Tensor) -> bool:
    return pair[0] is first and pair[1] is second


def test_all_off_hands_everything_back() -> None:
    guide = _guide(OFF)
    h, x = _inputs(3)
    rows = Rows(3, BOTH)
    _at(guide, 1)
    assert not guide.wants_reference
    assert guide.decoder_entry(0, h, rows) is h
    assert _are(guide.decoder_block(0, h, x, rows), h, x)
    assert guide.self_attention(SITE, x, Linears(8, 2), rows) is None
    assert not guide.smooths(Step(0, 1, SIGMAS[151]))


def test_capturing_changes_nothing_even_with_all_on() -> None:
    guide = _guide(ALL)
    h, x = _inputs(3)
    rows = Rows(3, BOTH)
    before = h.clone()
    with guide.capturing():
        assert guide.decoder_entry(0, h, rows) is h
        assert _are(guide.decoder_block(0, h, x, rows), h, x)
        assert guide.self_attention(SITE, x, Linears(8, 2), rows) is None
    assert torch.equal(h, before)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_acts_alone(part: str) -> None:
    guide = _guide(dataclasses.replace(OFF, **{part: True}))
    h, x = _inputs(3)
    rows = Rows(3, BOTH)
    _capture(guide, 3)
    _at(guide, 401)
    attended = guide.self_attention(SITE, x, Linears(8, 2), rows)
    entered = guide.decoder_entry(0, h, rows)
    assert (attended is not None) == part.endswith("attention")
    assert (entered is not h) == (not part.endswith("attention"))
    assert not torch.equal(entered, h) or part.endswith("attention")


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_chunks_in_one_call_or_in_two_or_one_only_give_the_same(frames: int) -> None:
    h, x = _inputs(frames)
    together = _guide(ALL, frames)
    _capture(together, frames)
    _at(together, 401)
    expected = _call(together, h, x, Rows(frames, BOTH))
    apart = _guide(ALL, frames)
    torch.manual_seed(frames + 10)
    source_h, source_x = (part.flip(0) for part in _inputs(frames))
    with apart.capturing():
        for number, chunk in enumerate(BOTH):
            part = slice(number * frames, (number + 1) * frames)
            apart.decoder_entry(0, source_h[part], Rows(frames, (chunk,)))
            apart.self_attention(SITE, source_x[part], Linears(8, 2), Rows(frames, (chunk,)))
    _at(apart, 401)
    for number, chunk in reversed(list(enumerate(BOTH))):
        part = slice(number * frames, (number + 1) * frames)
        found = _call(apart, h[part], x[part], Rows(frames, (chunk,)))
        assert torch.equal(found[0], expected[0][part])
        assert torch.equal(found[1], expected[1][part])


def test_order_of_the_chunks_does_not_matter() -> None:
    guide = _guide(ALL)
    _capture(guide, 3)
    _at(guide, 401)
    h, x = _inputs(3)
    one = _call(guide, h, x, Rows(3, BOTH))
    other = _call(guide, h.roll(3, 0), x.roll(3, 0), Rows(3, ("positive", "negative")))
    assert torch.equal(one[0].roll(3, 0), other[0])
    assert torch.equal(one[1].roll(3, 0), other[1])


def test_parts_end_with_the_noise() -> None:
    guide = _guide(dataclasses.replace(ALL, cross_frame_attention=False, freeu_b1=1.0))
    _capture(guide, 3)
    h, x = _inputs(3)
    rows = Rows(3, BOTH)
    _at(guide, 201, index=1)
    assert guide.self_attention(SITE, x, Linears(8, 2), rows) is None
    assert guide.decoder_entry(0, h, rows) is h


def test_freeu_acts_on_two_stages_only() -> None:
    settings = dataclasses.replace(
        OFF, freeu_b1=1.2, freeu_b2=1.4, freeu_s1=0.9, freeu_s2=0.2
    )
    guide = _guide(settings)
    h, _ = _inputs(3)
    rows = Rows(3, BOTH)
    _at(guide, 1)
    skip = h.clone()
    for stage in range(4):
        entered = guide.decoder_entry(stage, h, rows)
        assert entered is h
        changed = guide.decoder_block(stage, h, skip, rows)
        assert (changed[0] is h, changed[1] is skip) == (stage > 1, stage > 1)


def test_a_token_count_without_a_mask_looks_at_the_first_frame() -> None:
    guide = _guide(dataclasses.replace(OFF, cross_frame_attention=True))
    _at(guide, 401)
    x = torch.randn(3, 10, 8)
    project = Linears(8, 2)
    rows = Rows(3, ("positive",))
    expected = guide.self_attention(SITE, x, project, rows)
    changed = torch.cat([x[:1], x[1:2], torch.randn(1, 10, 8)])
    found = guide.self_attention(SITE, changed, project, rows)
    assert expected is not None
    assert found is not None
    assert torch.equal(expected[:2], found[:2])


def test_inference_mode_gives_the_same() -> None:
    h, x = _inputs(3)
    guide = _guide(ALL)
    _capture(guide, 3)
    _at(guide, 401)
    expected = _call(guide, h, x, Rows(3, BOTH))
    with torch.inference_mode():
        inside = _guide(ALL)
        _capture(inside, 3)
        _at(inside, 401)
        found = _call(inside, h.clone(), x.clone(), Rows(3, BOTH))
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    # What was prepared in inference mode serves outside of it too.
    again = _call(inside, h, x, Rows(3, BOTH))
    assert torch.equal(again[0], expected[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_half(dtype: torch.dtype) -> None:
    guide = _guide(ALL)
    h, x = (part.to(dtype) for part in _inputs(3))
    rows = Rows(3, BOTH)
    project = Linears(8, 2, dtype)
    with guide.capturing():
        guide.decoder_entry(0, h.flip(0), rows)
        guide.self_attention(SITE, x.flip(0), project, rows)
    _at(guide, 401)
    attended = guide.self_attention(SITE, x, project, rows)
    assert attended is not None
    assert {attended.dtype, guide.decoder_entry(0, h, rows).dtype} == {dtype}


def test_smoothing_of_images() -> None:
    guide = _guide(dataclasses.replace(OFF, background_smoothing=True))
    guide.begin([SIGMAS[t] for t in (201, 151, 101, 51)])
    acts = [guide.smooths(Step(i, 4, SIGMAS[t])) for i, t in enumerate((201, 151, 101, 51))]
    assert acts == [False, True, True, False]
    images = torch.rand(3, 3, HEIGHT, WIDTH) * 2 - 1
    guide.step(Step(0, 4, SIGMAS[201]))
    with pytest.raises(HostError, match="nothing is smoothed at this call"):
        guide.smooth(images)
    guide.step(Step(1, 4, SIGMAS[151]))
    assert guide.smooth(images).shape == images.shape
    with pytest.raises(HostError, match="working size"):
        guide.smooth(images[..., :-8])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_features_stay_broken(value: float) -> None:
    """The host looks at what the model returns; nothing here may hide what it looks for."""
    guide = _guide(ALL)
    _capture(guide, 3)
    _at(guide, 401)
    h, _ = _inputs(3)
    h[1, 2, 3, 1] = value
    assert not guide.decoder_entry(0, h, Rows(3, BOTH))[1].isfinite().all()


def test_a_chunk_that_was_not_captured_is_an_error() -> None:
    guide = _guide(ALL)
    _capture(guide, 3, ("positive",))
    _at(guide, 401)
    h, x = _inputs(3)
    with pytest.raises(HostError, match=r"decoder stage 0, chunk negative .*positive"):
        guide.decoder_entry(0, h, Rows(3, BOTH))
    with pytest.raises(HostError, match="attention layer 0, chunk negative"):
        guide.self_attention(SITE, x, Linears(8, 2), Rows(3, BOTH))


def test_broken_layouts_are_refused() -> None:
    guide = _guide(ALL)
    _at(guide, 401)
    h, x = _inputs(3)
    with pytest.raises(HostError, match="6 rows said to be 2 frames"):
        guide.decoder_entry(0, h, Rows(2, BOTH))
    with pytest.raises(HostError, match="5 rows"):
        guide.self_attention(SITE, x[:5], Linears(8, 2), Rows(3, BOTH))


def test_calls_out_of_order_are_refused() -> None:
    guide = _guide(ALL)
    h, _ = _inputs(3)
    with pytest.raises(HostError, match="before step"):
        guide.decoder_entry(0, h, Rows(3, BOTH))
    with pytest.raises(HostError, match="twice"), guide.capturing(), guide.capturing():
        pass


def test_motion_paths_of_another_size_are_refused() -> None:
    guide = _guide(dataclasses.replace(OFF, temporal_attention=True))
    _at(guide, 401)
    with pytest.raises(HostError, match="10 tokens"):
        guide.self_attention(SITE, torch.randn(3, 10, 8), Linears(8, 2), Rows(3, ("positive",)))


def test_smoothing_without_a_mask_is_refused() -> None:
    settings = dataclasses.replace(OFF, background_smoothing=True)
    with pytest.raises(HostError, match="saliency"):
        BatchGuidance.build(
            torch.zeros(2, 3, 16, 16), random_ring(2, 16, 16), None, settings, "cpu"
        )
