"""Small vectors of our own, for machines without the reference material.

Each case is a function from stored arrays to arrays. The stored outputs were written, by running
`python -m tests.golden.own_vectors`, when every case of the official vectors passed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fresco.blending.histogram import blend_histograms, to_lab
from fresco.blending.poisson import blend_gradients, selected_gradients
from fresco.flow.correspondence import key_mask, trace_chains
from fresco.flow.occlusion import BidirectionalFlow, occlusion
from fresco.guidance.attention import AttentionParts, Chains, guide_attention
from fresco.guidance.freeu import damp_low_frequencies, scale_backbone
from fresco.guidance.motion import make_feature_motion, resize_ring
from fresco.guidance.optimization import (
    Descent,
    OptimizationTarget,
    normalize_tokens,
    optimize_feature,
)
from fresco.guidance.smoothing import grow_occlusions, smooth_background
from tests.helpers.clips import moving_texture
from tests.helpers.guided import StoredLinears

FILE = Path(__file__).with_name("own_vectors.npz")
FRAMES, SIDE, SCALE, CHANNELS, HEADS = 3, 32, 8, 8, 2
Arrays = dict[str, np.ndarray]


def inputs() -> Arrays:
    """A moving texture with rough flow around its motion, features and linear maps."""
    random = np.random.default_rng(7)
    images = np.stack(moving_texture(FRAMES, SIDE, SIDE, motion=(8, 0)))
    cells = SIDE // SCALE
    flow = random.normal(scale=0.6, size=(2, FRAMES, 2, SIDE, SIDE)).astype(np.float32)
    flow[0, :, 0] += 8
    flow[1, :, 0] -= 8
    arrays = {
        "images": images,
        "forward": flow[0],
        "backward": flow[1],
        "feature": random.normal(size=(FRAMES, CHANNELS, cells, cells)),
        "reference": random.normal(size=(FRAMES, CHANNELS, cells, cells)),
        "saliency": random.uniform(size=(FRAMES, 1, SIDE // 2, SIDE // 2)),
        "pictures": random.normal(size=(FRAMES, 3, SIDE, SIDE)),
        "tokens": random.normal(size=(FRAMES, cells**2, CHANNELS)),
        "recorded": random.normal(size=(FRAMES, cells**2, CHANNELS)),
        "attn.to_out.0.bias": random.normal(size=CHANNELS),
    }
    for name in ("to_q", "to_k", "to_v", "to_out.0"):
        arrays[f"attn.{name}.weight"] = random.normal(size=(CHANNELS, CHANNELS)) / CHANNELS**0.5
    return {k: v if v.dtype == np.uint8 else v.astype(np.float32) for k, v in arrays.items()}


def _tensor(arrays: Arrays, name: str) -> Tensor:
    return torch.from_numpy(arrays[name]).float()


def _images(arrays: Arrays) -> Tensor:
    return _tensor(arrays, "images").permute(0, 3, 1, 2)


def _ring(arrays: Arrays) -> BidirectionalFlow:
    forward, backward = _tensor(arrays, "forward"), _tensor(arrays, "backward")
    return BidirectionalFlow(forward, backward, *occlusion(_images(arrays), forward, backward))


def _masks(arrays: Arrays) -> list[Tensor]:
    ring = _ring(arrays)
    chains = trace_chains(_images(arrays), ring, SCALE)
    return [ring.forward_occlusion, ring.backward_occlusion,
            key_mask(ring.backward_occlusion, SCALE), chains.to_first, chains.from_first,
            chains.linked]


def _attention(arrays: Arrays) -> list[Tensor]:
    ring = _ring(arrays)
    chains = trace_chains(_images(arrays), ring, SCALE)
    keys = key_mask(ring.backward_occlusion, SCALE).flatten().nonzero()[:, 0]
    recorded = _tensor(arrays, "recorded")
    paths = Chains.of(chains.to_first, chains.linked)
    maps = StoredLinears(arrays, "attn", HEADS)
    each = [AttentionParts(keys=keys), AttentionParts(recorded=recorded),
            AttentionParts(chains=paths), AttentionParts(keys, recorded, paths)]
    return [guide_attention(_tensor(arrays, "tokens"), maps, parts) for parts in each]


def _optimization(arrays: Arrays) -> list[Tensor]:
    feature = _tensor(arrays, "feature")
    motion = make_feature_motion(_ring(arrays), (SIDE // SCALE, SIDE // SCALE))
    reference = normalize_tokens(_tensor(arrays, "reference"))
    terms = [(reference, None), (None, motion), (reference, motion)]
    targets = [OptimizationTarget(*term, spatial_weight=100.0) for term in terms]
    return [optimize_feature(feature, target, Descent(5, 0.2)) for target in targets]


def _smoothing(arrays: Arrays) -> list[Tensor]:
    ring, saliency = _ring(arrays), _tensor(arrays, "saliency")
    feature = _tensor(arrays, "feature")
    small = resize_ring(ring, (feature.shape[-2], feature.shape[-1]))
    return [smooth_background(feature, small, saliency),
            smooth_background(_tensor(arrays, "pictures"), grow_occlusions(ring), saliency)]


def _freeu(arrays: Arrays) -> list[Tensor]:
    feature = _tensor(arrays, "feature")
    return [scale_backbone(feature, 1.5), damp_low_frequencies(feature, 0.2)]


def _blend(arrays: Arrays) -> list[Tensor]:
    forward, backward = (to_lab(arrays["images"][i]) for i in (0, 1))
    share = (np.indices((SIDE, SIDE))[1] > SIDE // 2).astype(np.float32)
    selected = forward + share[..., None] * (backward - forward)
    blended = blend_histograms(forward, backward, selected, weights=(0.25, 0.75))
    smooth = blend_gradients(
        np.asarray(blended, np.float32), *selected_gradients(forward, backward, share)
    )
    return [torch.from_numpy(np.asarray(x, np.float32)) for x in (blended, smooth)]


CASES: dict[str, Callable[[Arrays], list[Tensor]]] = {
    "masks": _masks, "attention": _attention, "optimization": _optimization,
    "smoothing": _smoothing, "freeu": _freeu, "blend": _blend,
}


def main() -> None:
    """Write the file of vectors."""
    torch.set_num_threads(1)
    arrays = inputs()
    stored = {f"in {name}": array for name, array in arrays.items()}
    for name, case in CASES.items():
        for number, result in enumerate(case(arrays)):
            stored[f"out {name} {number}"] = result.numpy()
    np.savez_compressed(FILE, **stored)  # pyright: ignore[reportArgumentType]
    sys.stdout.write(f"{FILE.name}: {len(stored)} arrays, {FILE.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
