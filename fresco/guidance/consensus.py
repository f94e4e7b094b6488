"""Denoised estimates of a batch brought to agree along the flow, with finished keyframes too.

A design of this project, tried in docs/method.md, section 15. At a few calls each frame's estimate,
decoded, moves toward those of its neighbours in time and of the two finished keyframes that the
batch takes over. Fine differences are evened out early only, so that texture stays the sampler's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco.errors import HostError
from fresco.flow.interface import FlowEstimator
from fresco.flow.occlusion import BidirectionalFlow, estimate_with_occlusion
from fresco.flow.warp import warp

ANCHORS = 2
"""Rows of a batch that are keyframes of the batch before."""
_ALIKE = 8.0
"""Difference of colours, of 255, at which two frames hardly show the same any more."""
_ANCHOR_WEIGHT = 2.0
"""Weight of a finished keyframe; that of a neighbour is 1."""
_SMALLEST_SHARE = 0.3
"""Share of a frame that must be seen in a finished keyframe for it to count."""
_COARSE = 4.0
"""Standard deviation in pixels of what counts as coarse."""
_MOST_GAIN = 0.1
"""A channel's contrast is changed by this share at most."""


@dataclass(frozen=True, slots=True)
class Link:
    """What one frame sees of another."""

    frame: int
    """Row that sees."""
    other: int
    """Row that is seen."""
    flow: Tensor
    """[2, H, W] pixels, x then y, from the frame to the other."""
    weight: Tensor
    """[1, H, W], 0 where the other does not show the same."""


def _weigh(images: Tensor, frame: int, other: int, flow: Tensor, occlusion: Tensor) -> Link:
    moved = warp(images[other, None], flow[None])[0]
    error = (images[frame] - moved).square().mean(dim=0, keepdim=True)
    alike = torch.exp(-error / (2 * _ALIKE**2))
    inside = warp(torch.ones_like(images[:1, :1]), flow[None])[0]
    return Link(frame, other, flow, (1 - occlusion)[None] * alike * inside)


@torch.no_grad()
def link_frames(
    images: Tensor, ring: BidirectionalFlow, estimator: FlowEstimator, *, carried: bool
) -> tuple[Link, ...]:
    """What the new frames of a batch see of each other and of finished keyframes.

    Args:
        images: [N, 3, H, W] in 0..255, on the CPU.
        ring: their flow.
        estimator: of flow between frames that are not neighbours.
        carried: whether rows 0 and 1 are keyframes of the batch before.
    """
    first, links = ANCHORS if carried else 0, list[Link]()
    for row in range(first, len(images)):
        if row > 0:
            links.append(_weigh(images, row, row - 1, ring.backward[row - 1],
                                ring.backward_occlusion[row - 1]))
        if row + 1 < len(images):
            links.append(_weigh(images, row, row + 1, ring.forward[row],
                                ring.forward_occlusion[row]))
    if not carried:
        return tuple(links)
    for anchor in range(ANCHORS):
        rows = [row for row in range(first, len(images)) if row - 1 != anchor]
        if not rows:
            continue
        found = estimate_with_occlusion(
            images[rows], images[anchor, None].expand(len(rows), -1, -1, -1), estimator
        )
        for row, flow, occlusion in zip(rows, found.forward, found.forward_occlusion, strict=True):
            link = _weigh(images, row, anchor, flow, occlusion)
            if link.weight.mean() >= _SMALLEST_SHARE:
                links.append(link)
    return tuple(links)


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [N, C, H, W], borders repeated."""
    reach = int(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    channels = x.shape[1]
    for shape, pad in (((1, -1), (reach, reach, 0, 0)), ((-1, 1), (0, 0, reach, reach))):
        weight = kernel.view(1, 1, *shape).expand(channels, -1, -1, -1)
        x = F.conv2d(F.pad(x, pad, mode="replicate"), weight, groups=channels)
    return x


def match_colours(images: Tensor, estimates: Tensor, finished: Tensor) -> Tensor:
    """Images [N, 3, H, W] with the gain and offset of each channel that bring estimates of some
    frames, [M, 3, H, W], nearest to what became of them."""
    axes = (0, 2, 3)
    mean, wanted = (x.mean(dim=axes, keepdim=True) for x in (estimates, finished))
    spread = (estimates - mean).square().mean(dim=axes, keepdim=True)
    common = ((estimates - mean) * (finished - wanted)).mean(dim=axes, keepdim=True)
    gain = (common / (spread + 1e-6)).clamp(1 - _MOST_GAIN, 1 + _MOST_GAIN)
    return (images - mean) * gain + wanted


@dataclass(frozen=True, slots=True)
class Consensus:
    """Brings denoised estimates of a batch to agree."""

    links: tuple[Link, ...]
    """What frames see of each other."""
    finished: Tensor | None
    """[2, 3, H, W] in [-1, 1], the finished keyframes of rows 0 and 1; None: there are none."""

    @torch.no_grad()
    def apply(self, images: Tensor, fine: float, *, colours: bool = False) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1] that agree; finished keyframes come back as they are.

        Args:
            fine: share of fine differences that is evened out, 0..1.
            colours: bring the colours of all to those of the finished keyframes first.
        """
        values = images.float()
        if self.finished is not None:
            if self.finished.shape[-2:] != values.shape[-2:]:
                raise HostError(
                    f"images are {tuple(values.shape[-2:])}, the finished keyframes "
                    f"{tuple(self.finished.shape[-2:])}; decode at the working size."
                )
            if colours:
                values = match_colours(values, values[:ANCHORS], self.finished)
            values = torch.cat([self.finished, values[ANCHORS:]])
        total, weights = values.clone(), torch.ones_like(values[:, :1])
        for link in self.links:
            strength = _ANCHOR_WEIGHT if self._is_finished(link.other) else 1.0
            weight = strength * link.weight
            total[link.frame] += weight * warp(values[link.other, None], link.flow[None])[0]
            weights[link.frame] += weight
        change = total / weights - values
        coarse = blur(change, _COARSE)
        return (values + coarse + fine * (change - coarse)).to(images.dtype)

    def _is_finished(self, row: int) -> bool:
        return self.finished is not None and row < ANCHORS
