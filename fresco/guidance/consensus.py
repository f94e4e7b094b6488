"""Consensus: make the denoised estimates of a batch agree along the flow.

This is a design of our own, described in docs/method.md, section 15. At a few model calls the
estimates are decoded. Each is then moved toward those of its neighbours in time, and toward the two
finished keyframes of the batch before. Fine differences are reduced only in early calls, so that
the sampler decides about texture. At more and earlier calls, coarse differences are reduced in the
latents, which needs no decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco.errors import HostError
from fresco.flow.interface import FlowEstimator
from fresco.flow.occlusion import BidirectionalFlow, estimate_with_occlusion
from fresco.flow.warp import warp

ANCHORS = 2
"""Number of rows of a batch that are keyframes of the batch before."""
_ALIKE = 8.0
"""Difference of colours, of 255, at which two frames probably no longer show the same."""
_ANCHOR_WEIGHT = 3.0
"""Weight of a finished keyframe; that of a neighbour is 1."""
_BORDER_WEIGHT = 8.0
"""Weight of the last finished keyframe for the new one after it, its neighbour at the border."""
_LATENT_ANCHOR_WEIGHT = 6.0
"""Weight of finished keyframes in latents."""
_LATENT_PASSES = 4
"""Rounds in latents, so that the influence of a finished keyframe reaches all frames of a batch."""
_OTHER_WORDS = 0.25
"""Factor of the weight between frames with different prompts."""
_SMALLEST_SHARE = 0.3
"""Share of a frame that a finished keyframe must show for it to count."""
_COARSE = 4.0
"""Standard deviation in pixels of the blur that separates coarse from fine differences."""
_LATENT_COARSE = 1.0
"""The same for latents, in units of 8 pixels."""
_MOST_GAIN = 0.1
"""Largest change of a channel's contrast, as a share."""


@dataclass(frozen=True, slots=True)
class Link:
    """Which pixels of one frame are visible in another, and where."""

    frame: int
    """Row of the frame."""
    other: int
    """Row of the other frame."""
    flow: Tensor
    """[2, H, W] pixels, x then y, from the frame to the other."""
    weight: Tensor
    """[1, H, W], 0 where the other frame does not show the same."""


def _weigh(
    images: Tensor, prompts: Sequence[str], pair: tuple[int, int], flow: Tensor, occlusion: Tensor
) -> Link:
    frame, other = pair
    moved = warp(images[other, None], flow[None])[0]
    error = (images[frame] - moved).square().mean(dim=0, keepdim=True)
    alike = torch.exp(-error / (2 * _ALIKE**2))
    inside = warp(torch.ones_like(images[:1, :1]), flow[None])[0]
    words = 1.0 if not prompts or prompts[frame] == prompts[other] else _OTHER_WORDS
    return Link(frame, other, flow, words * (1 - occlusion)[None] * alike * inside)


@torch.no_grad()
def link_frames(
    images: Tensor, ring: BidirectionalFlow, estimator: FlowEstimator, *, carried: bool,
    prompts: Sequence[str] = (),
) -> tuple[Link, ...]:
    """Link the new frames of a batch with their neighbours and with the finished keyframes.

    Args:
        images: [N, 3, H, W] in 0..255, on the CPU.
        ring: flow between neighbours.
        estimator: estimates the flow between frames that are not neighbours.
        carried: whether rows 0 and 1 are keyframes of the batch before.
        prompts: prompt of every frame; empty if all are the same. Frames with different prompts are
            linked more weakly.
    """
    first, links = ANCHORS if carried else 0, list[Link]()
    for row in range(first, len(images)):
        if row > 0:
            links.append(_weigh(images, prompts, (row, row - 1), ring.backward[row - 1],
                                ring.backward_occlusion[row - 1]))
        if row + 1 < len(images):
            links.append(_weigh(images, prompts, (row, row + 1), ring.forward[row],
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
            link = _weigh(images, prompts, (row, anchor), flow, occlusion)
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


def shrink_link(link: Link, size: tuple[int, int]) -> Link:
    """Convert a link to frames of a smaller height and width, such as latents."""
    height, width = link.flow.shape[-2:]
    ratio = link.flow.new_tensor([size[1] / width, size[0] / height])[:, None, None]
    flow = F.adaptive_avg_pool2d(link.flow, size) * ratio
    return Link(link.frame, link.other, flow, F.adaptive_avg_pool2d(link.weight, size))


def match_colours(images: Tensor, estimates: Tensor, finished: Tensor) -> Tensor:
    """Apply one gain and offset for each channel to images [N, 3, H, W].

    They are those that bring the estimates of some frames, [M, 3, H, W], nearest to the finished
    images of the same frames.
    """
    axes = (0, 2, 3)
    mean, wanted = (x.mean(dim=axes, keepdim=True) for x in (estimates, finished))
    spread = (estimates - mean).square().mean(dim=axes, keepdim=True)
    common = ((estimates - mean) * (finished - wanted)).mean(dim=axes, keepdim=True)
    gain = (common / (spread + 1e-6)).clamp(1 - _MOST_GAIN, 1 + _MOST_GAIN)
    return (images - mean) * gain + wanted


@dataclass(frozen=True, slots=True)
class Consensus:
    """Makes denoised estimates of a batch agree."""

    links: tuple[Link, ...]
    """Links between the frames."""
    finished: Tensor | None
    """[2, 3, H, W] in [-1, 1], the finished keyframes of rows 0 and 1; None: there are none."""

    @torch.no_grad()
    def apply(self, images: Tensor, fine: float, *, colours: bool = False) -> Tensor:
        """Make images [N, 3, H, W] in [-1, 1] agree; finished keyframes are returned unchanged.

        Args:
            fine: share of fine differences that is removed, 0..1.
            colours: whether to match the colours of all to the finished keyframes first.
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
        weights = [self._weigh_image(link) * link.weight for link in self.links]
        change = _average(values, values, self.links, weights) - values
        coarse = blur(change, _COARSE)
        return (values + coarse + fine * (change - coarse)).to(images.dtype)

    @torch.no_grad()
    def apply_to_latents(self, latents: Tensor) -> Tensor:
        """Reduce coarse differences between latents [N, C, h, w] of denoised estimates.

        The rows of finished keyframes are returned unchanged.
        """
        values = latents.float()
        size = (values.shape[-2], values.shape[-1])
        links = [shrink_link(link, size) for link in self.links]
        weights = [
            (_LATENT_ANCHOR_WEIGHT if self._is_finished(link.other) else 1.0) * link.weight
            for link in links
        ]
        agreed = values
        for _ in range(_LATENT_PASSES):
            agreed = _average(values, agreed, links, weights)
        return (values + blur(agreed - values, _LATENT_COARSE)).to(latents.dtype)

    def _weigh_image(self, link: Link) -> float:
        if not self._is_finished(link.other):
            return 1.0
        at_border = (link.frame, link.other) == (ANCHORS, ANCHORS - 1)
        return _BORDER_WEIGHT if at_border else _ANCHOR_WEIGHT

    def _is_finished(self, row: int) -> bool:
        return self.finished is not None and row < ANCHORS


def _average(
    own: Tensor, others: Tensor, links: Sequence[Link], weights: Sequence[Tensor]
) -> Tensor:
    """Average each frame's own values, with weight 1, and those of linked frames; [N, C, H, W]."""
    total, whole = own.clone(), torch.ones_like(own[:, :1])
    for link, weight in zip(links, weights, strict=True):
        total[link.frame] += weight * warp(others[link.other, None], link.flow[None])[0]
        whole[link.frame] += weight
    return total / whole
