"""Token chains: the official vectors, the plain loop, and what must hold for all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.chains import DeviceWaits, equal, scene
from benchmarks.plain_chains import plain_chains
from fresco.flow.correspondence import key_mask, map_pairs, trace_chains
from fresco.flow.occlusion import BidirectionalFlow
from fresco.flow.tensors import to_images
from tests.helpers.shared import golden, golden_cases

CASES = golden_cases("03_flow_masks", "car_192x192", "boxer_128x192")


def official(case: str) -> tuple[dict[str, np.ndarray], torch.Tensor, BidirectionalFlow]:
    arrays, _ = golden("03_flow_masks", case)
    names = ("fwd_flows", "bwd_flows", "fwd_occs", "bwd_occs")
    flow = BidirectionalFlow(*(torch.from_numpy(arrays[name]).float() for name in names))
    return arrays, to_images(arrays["frames_rgb_u8"]), flow


def random_case(
    frames: int, height: int, width: int, seed: int, colours: int = 256
) -> tuple[torch.Tensor, BidirectionalFlow]:
    """Frames of few colours (many ties) with wild flow that lands between, on and off tokens."""
    random = np.random.default_rng(seed)
    images = random.integers(0, colours, (frames, 3, height, width)).astype(np.float32)
    flow = (random.integers(-24, 25, (frames, 2, height, width)) / 2).astype(np.float32)
    hidden = (random.random((frames, height, width)) < 0.2).astype(np.float32)
    parts = (torch.from_numpy(part) for part in (flow, flow, hidden, hidden))
    return torch.from_numpy(images), BidirectionalFlow(*parts)


@pytest.mark.parametrize("scale", [8, 16])
@pytest.mark.parametrize("case", CASES)
def test_chains_are_the_official_ones(case: str, scale: int) -> None:
    arrays, images, flow = official(case)
    chains = trace_chains(images, flow, scale)
    np.testing.assert_array_equal(chains.to_first, arrays[f"fwd_mappings_s{scale}"][:, 0])
    np.testing.assert_array_equal(chains.from_first, arrays[f"bwd_mappings_s{scale}"][:, 0])
    np.testing.assert_array_equal(chains.linked, arrays[f"interattn_mask_s{scale}"][:, 0])


@pytest.mark.parametrize("case", CASES)
def test_the_map_of_a_pair_is_the_official_one(case: str) -> None:
    arrays, images, flow = official(case)
    maps, linked = map_pairs(images, flow, 8)
    np.testing.assert_array_equal(maps[0], arrays["single_mapping_ind_s8_pair01"])
    np.testing.assert_array_equal(~linked[0], arrays["single_unlinked_s8_pair01"])


@pytest.mark.parametrize("scale", [8, 16, 32])
@pytest.mark.parametrize("case", CASES)
def test_key_masks_are_the_official_ones(case: str, scale: int) -> None:
    arrays, _, flow = official(case)
    np.testing.assert_array_equal(
        key_mask(flow.backward_occlusion, scale), arrays[f"attn_mask_s{scale}"]
    )


@given(
    st.integers(1, 5), st.integers(1, 30), st.integers(1, 30), st.sampled_from([1, 2, 4]),
    st.integers(0, 999), st.sampled_from([2, 256]),
)
@settings(max_examples=60, deadline=None)
def test_chains_are_those_of_the_plain_loop(
    frames: int, height: int, width: int, scale: int, seed: int, colours: int
) -> None:
    images, flow = random_case(frames, height, width, seed, colours)
    assert equal(trace_chains(images, flow, scale), plain_chains(images, flow, scale))


@given(st.integers(1, 6), st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_chains_are_permutations_and_links_an_equivalence(frames: int, seed: int) -> None:
    chains = trace_chains(*random_case(frames, 24, 32, seed), 4)
    tokens = torch.arange(48).expand(frames, -1)
    assert torch.equal(chains.to_first.gather(1, chains.from_first), tokens)
    assert torch.equal(chains.from_first.gather(1, chains.to_first), tokens)
    assert torch.equal(chains.to_first[0], tokens[0])
    linked = chains.linked
    assert linked.diagonal(dim1=1, dim2=2).all()
    assert torch.equal(linked, linked.transpose(1, 2))
    two_hops = linked.float() @ linked.float() > 0
    assert torch.equal(two_hops, linked)


def test_without_motion_every_chain_stays_and_is_whole() -> None:
    images, _ = random_case(4, 16, 24, 0)
    none = torch.zeros(4, 2, 16, 24)
    chains = trace_chains(images, BidirectionalFlow(none, none, none[:, 0], none[:, 0]), 8)
    assert torch.equal(chains.to_first, torch.arange(6).expand(4, -1))
    assert chains.linked.all()


def test_a_shift_by_a_token_moves_chains_by_one() -> None:
    images, _ = random_case(2, 8, 32, 0)
    backward = torch.zeros(2, 2, 8, 32)
    backward[:, 0] = -8  # what is at x came from x - 8
    none = torch.zeros(2, 8, 32)
    chains = trace_chains(images, BidirectionalFlow(-backward, backward, none, none), 8)
    assert chains.to_first[1].tolist() == [1, 2, 3, 0]
    assert chains.linked[:, 0, 1].tolist() == [True, True, True, False]


def test_the_closing_pair_of_the_ring_is_not_used() -> None:
    images, flow = random_case(3, 16, 16, 1)
    other = flow.backward.clone()
    other[-1] += 5
    changed = BidirectionalFlow(flow.forward, other, flow.forward_occlusion,
                                flow.backward_occlusion)
    assert equal(trace_chains(images, flow, 2), trace_chains(images, changed, 2))


def test_sides_need_not_be_whole_tokens() -> None:
    images, flow = random_case(3, 17, 30, 2)
    assert trace_chains(images, flow, 8).to_first.shape == (3, 3 * 4)
    assert key_mask(flow.backward_occlusion, 8).shape == (3, 3 * 4)


def test_keys_are_the_first_frame_and_what_is_new() -> None:
    hidden = torch.zeros(3, 16, 16)
    hidden[0, :8, :8] = 1
    hidden[1, 3:5, 11:13] = 1  # the 2x2 centre of one cell
    hidden[2] = 1  # closes the ring
    assert key_mask(hidden, 8).tolist() == [[True] * 4, [True] + [False] * 3,
                                            [False, True, False, False]]
    assert key_mask(hidden[:1], 8).tolist() == [[True] * 4]


def test_nothing_makes_the_host_wait_for_the_device() -> None:
    # On the meta device every read-back raises, and every tensor carried over is seen.
    images, flow = scene(3, 8, seed=0)
    with DeviceWaits() as waits:
        chains = trace_chains(images.to("meta"), flow.to("meta"), 8)
        mask = key_mask(flow.backward_occlusion.to("meta"), 8)
    moves = [name for name in waits.found if not name.startswith("_to_copy")]
    assert chains.to_first.device.type == mask.device.type == "meta"
    assert moves == []
    assert len(waits.found) == 6  # the arguments themselves: images, four parts of flow, a mask


@pytest.mark.parametrize("wait", [
    lambda x: x.sum().item(), lambda x: x.nonzero(), lambda x: x[x > 0], torch.unique,
    lambda x: bool((x > 0).any()), lambda x: x + torch.tensor([1.0]),
], ids=["item", "nonzero", "mask", "unique", "bool", "carried over"])
def test_waits_are_noticed(wait) -> None:
    with DeviceWaits() as waits:
        wait(torch.ones(3))
    assert waits.found
