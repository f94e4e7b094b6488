"""The three attentions against the official outputs, the plain version, and their properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import plain
from fresco.guidance import attention
from fresco.guidance.attention import AttentionParts, Chains, guide_attention
from tests.helpers.guided import Linears, StoredLinears
from tests.helpers.shared import golden, golden_cases, kept
from tests.helpers.tolerances import EXACT_BY_DTYPE, GUIDANCE_GOLDEN

HEADS = 8
PARTS_OF = {
    "out_plain": "", "out_cf": "c", "out_intra": "s", "out_intra_second_module": "s",
    "out_inter": "t", "out_cf_intra": "cs", "out_cf_inter": "ct", "out_intra_inter": "st",
    "out_all": "cst", "out_all_second_module": "cst", "out_cf_no_matching_mask": "0",
}
CASES = [
    (case, output, parts) for case in golden_cases("04_attention", "car_s16")
    for output, parts in PARTS_OF.items()
] + [
    (case, output, PARTS_OF[output]) for case in golden_cases("04_attention", "car_s8")
    for output in ("out_inter", "out_all")
]


@pytest.mark.parametrize(("case", "output", "parts"), CASES)
def test_official_outputs(case: str, output: str, parts: str) -> None:
    arrays, note = golden("04_attention", case)
    module = "1" if "second" in output else "0"
    project = StoredLinears(arrays, f"attn{module}", HEADS)
    x, recorded = (torch.from_numpy(arrays[f"{name}{module}"]) for name in ("x", "ref"))
    keys = None
    if "c" in parts:
        keys = torch.from_numpy(arrays["attn_mask"]).flatten().nonzero()[:, 0]
    elif "0" in parts:
        keys = torch.arange(x.shape[1])
    chains = Chains.of(
        torch.from_numpy(arrays["fwd_mapping"])[:, 0],
        torch.from_numpy(arrays["interattn_mask"])[:, 0],
    )
    results = [
        guide_attention(chunk, project, AttentionParts(
            keys, source if "s" in parts else None, chains if "t" in parts else None
        ))
        for chunk, source in zip(x.chunk(2), recorded.chunk(2), strict=True)
    ]
    np.testing.assert_allclose(
        kept(note, output, torch.cat(results).numpy()), arrays[output], atol=GUIDANCE_GOLDEN, rtol=0
    )


def _paths(frames: int, tokens: int) -> tuple[Tensor, Tensor]:
    to_first = torch.stack([torch.randperm(tokens) for _ in range(frames)])
    broken = torch.rand(tokens, frames).gt(0.6).cumsum(1)
    return to_first, broken[:, :, None] == broken[:, None]


@pytest.mark.parametrize("tile", [1, 40, 8192])
def test_all_parts_equal_the_plain_version_for_every_tiling(
    tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "TILE_TOKENS", tile)
    torch.manual_seed(0)
    frames, tokens, channels = 3, 20, 16
    project = Linears(channels, 2)
    x, recorded = torch.randn(2, 2 * frames, tokens, channels)
    mask = torch.rand(frames, tokens) < 0.3
    mask[0] = True
    to_first, linked = _paths(frames, tokens)
    expected = plain.attention(
        x, project, key_mask=mask, recorded=recorded, to_first=to_first,
        from_first=to_first.argsort(1), linked=linked,
    )
    keys, chains = mask.flatten().nonzero()[:, 0], Chains.of(to_first, linked)
    results = [
        guide_attention(chunk, project, AttentionParts(keys, source, chains))
        for chunk, source in zip(x.chunk(2), recorded.chunk(2), strict=True)
    ]
    torch.testing.assert_close(torch.cat(results), expected, atol=1e-5, rtol=0)


def test_uniform_reference_averages_the_queries() -> None:
    torch.manual_seed(1)
    project = Linears(8, 2)
    query = torch.randn(2, 2, 9, 4)
    same = torch.ones(2, 9, 8)
    averaged = attention.average_queries(query, same, project)
    expected = query.mean(2, keepdim=True).expand_as(query)
    torch.testing.assert_close(averaged, expected, atol=1e-6, rtol=0)


def test_chains_of_broken_links_change_nothing() -> None:
    torch.manual_seed(2)
    frames, tokens = 4, 12
    project, x = Linears(8, 2), torch.randn(frames, tokens, 8)
    to_first, _ = _paths(frames, tokens)
    alone = torch.eye(frames, dtype=torch.bool).expand(tokens, -1, -1)
    guided = guide_attention(x, project, AttentionParts(chains=Chains.of(to_first, alone)))
    torch.testing.assert_close(
        guided, guide_attention(x, project, AttentionParts()), atol=1e-6, rtol=0
    )


def test_a_single_frame_has_no_temporal_effect() -> None:
    torch.manual_seed(3)
    project, x = Linears(8, 2), torch.randn(1, 12, 8)
    chains = Chains.of(torch.arange(12)[None], torch.ones(12, 1, 1, dtype=torch.bool))
    guided = guide_attention(x, project, AttentionParts(torch.arange(12), None, chains))
    torch.testing.assert_close(
        guided, guide_attention(x, project, AttentionParts()), atol=1e-6, rtol=0
    )


def test_equal_frames_stay_equal_when_all_look_at_the_same() -> None:
    torch.manual_seed(4)
    project, frame = Linears(8, 2), torch.randn(1, 12, 8)
    guided = guide_attention(frame.repeat(3, 1, 1), project, AttentionParts(torch.arange(12)))
    assert torch.equal(guided[0], guided[1])
    torch.testing.assert_close(
        guided[:1], guide_attention(frame, project, AttentionParts()), atol=1e-6, rtol=0
    )


def test_renaming_the_chains_changes_nothing() -> None:
    torch.manual_seed(5)
    frames, tokens = 3, 15
    project, x = Linears(8, 2), torch.randn(frames, tokens, 8)
    to_first, linked = _paths(frames, tokens)
    order = torch.randperm(tokens)
    one, other = Chains.of(to_first, linked), Chains.of(to_first[:, order], linked[order])
    torch.testing.assert_close(
        guide_attention(x, project, AttentionParts(chains=one)),
        guide_attention(x, project, AttentionParts(chains=other)), atol=1e-6, rtol=0,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(6)
    frames, tokens = 2, 16
    x, recorded = torch.randn(2, frames, tokens, 16)
    torch.manual_seed(7)
    exact = Linears(16, 2)
    torch.manual_seed(7)
    rounded = Linears(16, 2, dtype)
    to_first, linked = _paths(frames, tokens)
    parts = AttentionParts(torch.arange(20), recorded, Chains.of(to_first, linked))
    result = guide_attention(x.to(dtype), rounded, parts)
    assert result.dtype == dtype
    expected = guide_attention(x, exact, parts)
    assert (result.float() - expected).abs().mean() < EXACT_BY_DTYPE[dtype]


def test_inference_mode_gives_the_same() -> None:
    torch.manual_seed(8)
    project, x = Linears(8, 2), torch.randn(2, 12, 8)
    to_first, linked = _paths(2, 12)
    parts = AttentionParts(torch.arange(14), x, Chains.of(to_first, linked))
    expected = guide_attention(x, project, parts)
    with torch.inference_mode():
        assert torch.equal(guide_attention(x.clone(), project, parts), expected)
