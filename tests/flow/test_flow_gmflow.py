"""GMFlow: the official vectors, and its blocks."""

from __future__ import annotations

import json
import zlib
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from fresco.flow import gmflow
from fresco.flow.gmflow import (
    GMFlow,
    add_position,
    attend,
    label_windows,
    match_features,
    merge_windows,
    normalise_images,
    split_windows,
)
from fresco.flow.tensors import to_images
from tests.helpers.motion_scenes import texture
from tests.helpers.shared import GOLDEN, golden, golden_cases, kept
from tests.helpers.tolerances import (
    EXACT_BY_DTYPE,
    GMFLOW_BACKBONE,
    GMFLOW_MEAN_PIXELS,
)

CASES = golden_cases("02_gmflow", "car_128x192", "car_192x192")


@cache
def official() -> GMFlow:
    arrays, _ = golden("02_gmflow", "weights")
    network = GMFlow().eval().requires_grad_(False)
    network.load_state_dict({name: torch.from_numpy(v) for name, v in arrays.items()})
    return network


def own() -> GMFlow:
    """A network whose weights follow from their names."""
    network = GMFlow().eval().requires_grad_(False)
    for name, value in network.state_dict().items():
        random = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
        scale = 0.02 if value.ndim < 2 else (2 / np.prod(value.shape[1:])) ** 0.5
        values = scale * random.standard_normal(tuple(value.shape))
        value.copy_(torch.from_numpy(values + (1 if "norm" in name and "weight" in name else 0)))
    return network


def own_pair() -> Tensor:
    return to_images(np.stack([texture(32, 48), np.roll(texture(32, 48), 5, axis=1)]))


def test_weights_are_named_as_the_published_ones() -> None:
    keys = json.loads((GOLDEN / "02_gmflow" / "state_dict_keys.json").read_text())
    state = GMFlow().state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == keys["keys"]
    assert sum(value.numel() for value in state.values()) == keys["n_params"]


@pytest.mark.parametrize("case", CASES)
def test_flow_agrees_with_the_official_network(case: str) -> None:
    arrays, note = golden("02_gmflow", case)
    images = to_images(arrays["frames_rgb_u8"])
    flows = official()(images, images.roll(-1, dims=0))
    difference = np.abs(np.stack([
        kept(note, name, flow.numpy()) - arrays[name]
        for flow, name in zip(flows, ("fwd_flows", "bwd_flows"), strict=True)
    ]))
    assert difference.mean() <= GMFLOW_MEAN_PIXELS
    assert np.quantile(difference, 0.999) <= 0.1


@pytest.mark.parametrize("case", golden_cases("02_gmflow", "car_128x192"))
def test_stages_agree_with_the_official_network(case: str) -> None:
    arrays, note = golden("02_gmflow", case)
    images, network = to_images(arrays["frames_rgb_u8"]), official()
    features = network.backbone(normalise_images(torch.cat((images, images.roll(-1, dims=0)))))
    found = kept(note, "backbone_feature", features.numpy())
    assert np.abs(found - arrays["backbone_feature"]).max() <= GMFLOW_BACKBONE
    features = network.transformer(add_position(features))
    coarse = match_features(features, features.roll(3, dims=0))
    spread = network.feature_flow_attn(features, coarse)
    for flow, name in ((coarse, "matching"), (spread, "propagated")):
        difference = np.abs(flow.numpy() - arrays[f"{name}_flow_low_res"])
        assert difference.mean() <= GMFLOW_MEAN_PIXELS


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, network = own_pair().double(), own().double()
    whole = torch.cat(network(pair[:1], pair[1:]))
    monkeypatch.setattr(gmflow, "BLOCK_ELEMENTS", 7)
    blocks = torch.cat(network(pair[:1], pair[1:]))
    assert (whole - blocks).abs().max() < EXACT_BY_DTYPE[torch.float64]


def test_backward_flow_is_the_forward_flow_of_the_swapped_pair() -> None:
    pair, network = own_pair().double(), own().double()
    there = network(pair[:1], pair[1:])
    back = network(pair[1:], pair[:1])
    assert (there[0] - back[1]).abs().max() < EXACT_BY_DTYPE[torch.float64]
    assert (there[1] - back[0]).abs().max() < EXACT_BY_DTYPE[torch.float64]


def test_windows_split_and_merge() -> None:
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    windows = split_windows(x)
    assert torch.equal(windows[1], x[0, :, :2, 3:])
    assert torch.equal(windows[4 + 2], x[1, :, 2:, :3])
    assert torch.equal(merge_windows(windows), x)


def test_regions_keep_apart_what_a_shift_joined() -> None:
    regions = label_windows(8, 8, torch.zeros(1))
    assert [len(set(window.tolist())) for window in regions] == [1, 2, 2, 4]


def test_attention_stays_in_its_region() -> None:
    random = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 6, 4, generator=random)
    regions = torch.tensor([[0, 0, 0, 1, 1, 1]])
    both = attend(query, key, value, regions)
    first = attend(query[:, :3], key[:, :3], value[:, :3])
    assert (both[:, :3] - first).abs().max() < EXACT_BY_DTYPE[torch.float32]


def test_matching_finds_a_whole_shift() -> None:
    features = 40 * torch.randn(1, 128, 6, 8, generator=torch.Generator().manual_seed(1))
    flow = match_features(features, features.roll(2, dims=3))
    assert (flow[:, 0, :, :-2] - 2).abs().max() < 1e-3
    assert flow[:, 1, :, :-2].abs().max() < 1e-3
