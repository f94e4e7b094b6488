"""Occlusion by forward-backward consistency, and the flow of a batch in a ring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fresco.flow.arrays import ABSOLUTE_ERROR, COLOUR_DIFFERENCE, RELATIVE_ERROR
from fresco.flow.tensors import to_images
from fresco.flow.warp import warp

if TYPE_CHECKING:
    from fresco.flow.interface import FlowEstimator


@dataclass(frozen=True, slots=True)
class BidirectionalFlow:
    """Flow and occlusion of the frames of a batch in a ring: pair i is (i, i + 1 mod N)."""

    forward: Tensor
    """[N, 2, H, W] pixels, x then y: frame i to i + 1."""
    backward: Tensor
    """[N, 2, H, W] pixels, x then y: frame i + 1 to i."""
    forward_occlusion: Tensor
    """[N, H, W], 1 = the pixel of frame i has no match in i + 1."""
    backward_occlusion: Tensor
    """[N, H, W], 1 = the pixel of frame i + 1 has no match in i."""

    def to(self, device: torch.device | str) -> BidirectionalFlow:
        """The same on another device."""
        return BidirectionalFlow(
            self.forward.to(device), self.backward.to(device),
            self.forward_occlusion.to(device), self.backward_occlusion.to(device),
        )


class OccludedFlow(NamedTuple):
    """Flow and occlusion of separate pairs; fields as in `BidirectionalFlow`."""

    forward: Tensor
    backward: Tensor
    forward_occlusion: Tensor
    backward_occlusion: Tensor


@runtime_checkable
class OcclusionEstimator(Protocol):
    """An estimator that gives the occlusion, too, because it stores both."""

    def estimate_with_occlusion(self, source: Tensor, target: Tensor) -> OccludedFlow:
        """Flow and occlusion of pairs of images [B, 3, H, W] in 0..255, on their device."""
        ...


def _measure_length(flow: Tensor) -> Tensor:
    return torch.linalg.vector_norm(flow, dim=1)


def _find_known(flow: Tensor) -> Tensor:
    """Where a flow [N, 2, H, W] is a number: [N, 1, H, W] bool."""
    return torch.isfinite(flow).all(dim=1, keepdim=True)


def replace_unknown(flow: Tensor) -> Tensor:
    """Replace values of a flow [N, 2, H, W] that are not finite by 0."""
    return torch.where(_find_known(flow), flow, 0)


def check_consistency(forward: Tensor, backward: Tensor) -> tuple[Tensor, Tensor]:
    """Find pixels that a round trip misses: |f + warp(b, f)| > 0.01 (|f| + |b|) + 0.5.

    A pixel whose flow is not finite, or leads to one whose flow is not, misses too.

    Args:
        forward, backward: [N, 2, H, W] pixels.

    Returns:
        Masks [N, H, W] of the forward and the backward flow, 1 = occluded.
    """
    there, back = replace_unknown(forward), replace_unknown(backward)
    allowed = RELATIVE_ERROR * (_measure_length(there) + _measure_length(back)) + ABSOLUTE_ERROR
    missed = []
    for flow, known, other in ((there, forward, backward), (back, backward, forward)):
        found = _measure_length(flow + warp(other, flow)) <= allowed  # not so for NaN
        missed.append(~(found & _find_known(known)[:, 0]))
    return missed[0].to(forward.dtype), missed[1].to(forward.dtype)


def find_occlusion(
    source: Tensor, target: Tensor, forward: Tensor, backward: Tensor
) -> tuple[Tensor, Tensor]:
    """Occlusion of pairs of images: inconsistent flow, or colours that differ by a quarter.

    Args:
        source, target: [N, 3, H, W] in 0..255.
        forward, backward: [N, 2, H, W] pixels, source to target and back.

    Returns:
        Masks [N, H, W] on the source's and on the target's pixels, 1 = occluded.
    """
    missed_forward, missed_backward = check_consistency(forward, backward)
    forward, backward = replace_unknown(forward), replace_unknown(backward)
    off_source = (source - warp(target, forward)).abs().mean(dim=1) > COLOUR_DIFFERENCE
    off_target = (target - warp(source, backward)).abs().mean(dim=1) > COLOUR_DIFFERENCE
    return (
        torch.maximum(missed_forward, off_source.to(missed_forward.dtype)),
        torch.maximum(missed_backward, off_target.to(missed_backward.dtype)),
    )


def judge_pairs(source: Tensor, target: Tensor, forward: Tensor, backward: Tensor) -> OccludedFlow:
    """Find the occlusion of flows of pairs of images, see `find_occlusion`.

    What an estimator gives that is not finite is occluded, and 0 from here on.
    """
    masks = find_occlusion(source, target, forward, backward)
    return OccludedFlow(replace_unknown(forward), replace_unknown(backward), *masks)


def occlusion(images: Tensor, forward: Tensor, backward: Tensor) -> tuple[Tensor, Tensor]:
    """Occlusion of a batch in a ring, see `find_occlusion`; images [N, 3, H, W] in 0..255."""
    return find_occlusion(images, images.roll(-1, dims=0), forward, backward)


def estimate_with_occlusion(
    source: Tensor, target: Tensor, estimator: FlowEstimator
) -> OccludedFlow:
    """Estimate flow of pairs of images [B, 3, H, W] in 0..255, with its occlusion."""
    if isinstance(estimator, OcclusionEstimator):
        return estimator.estimate_with_occlusion(source, target)
    flows = (flow.float() for flow in estimator.estimate(source, target))
    return judge_pairs(source, target, *flows)


def ring_flow(frames: NDArray[np.uint8], estimator: FlowEstimator) -> BidirectionalFlow:
    """Estimate flow and occlusion of a batch in a ring, on the CPU; a single frame has none.

    Args:
        frames: [N, H, W, 3] RGB.
    """
    images = to_images(frames)
    if len(frames) == 1:
        still = torch.zeros(1, 2, *images.shape[-2:])
        return BidirectionalFlow(still, still.clone(), still[:, 0].clone(), still[:, 0].clone())
    return BidirectionalFlow(*estimate_with_occlusion(images, images.roll(-1, dims=0), estimator))
