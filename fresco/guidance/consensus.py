"""Denoised estimates of a batch brought to agree along the flow, with finished keyframes too.

A design of this project, tried in docs/method.md, section 15. At a few calls each frame's estimate,
decoded, moves toward those of its neighbours in time and of the two finished keyframes that the
batch takes over. Fine differences are evened out early only, so that texture stays the sampler's.
At more and earlier calls coarse differences are evened out in the latents, at no cost of a codec.
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
"""Rows of a batch that are keyframes of the batch before."""
_ALIKE = 8.0
"""Difference of colours, of 255, at which two frames hardly show the same any more."""
_ANCHOR_WEIGHT = 3.0
"""Weight of a finished keyframe; that of a neighbour is 1."""
_BORDER_WEIGHT = 8.0
"""Weight of the last finished keyframe for the new one after it: they meet at the border."""
_LATENT_ANCHOR_WEIGHT = 6.0
"""Weight in latents of the rows that are finished keyframes."""
_LATENT_PASSES = 4
"""Rounds in latents, so that what a finished keyframe shows reaches all frames of the batch."""
_OTHER_WORDS = 0.25
"""Share of the weight that is left between frames with different prompts."""
_SMALLEST_SHARE = 0.3
"""Share of a frame that must be seen in a finished keyframe for it to count."""
_COARSE = 4.0
"""Standard deviation in pixels of what counts as coarse."""
_LATENT_COARSE = 1.0
"""The same in latents, which are 8 pixels wide."""
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
    """What the new frames of a batch see of each other and of finished keyframes.

    Args:
        images: [N, 3, H, W] in 0..255, on the CPU.
        ring: their flow.
        estimator: of flow between frames that are not neighbours.
        carried: whether rows 0 and 1 are keyframes of the batch before.
        prompts: of every frame; none: all the same. Frames that are to differ are linked less.
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
    """The same link between frames of a smaller height and width, such as latents."""
    height, width = link.flow.shape[-2:]
    ratio = link.flow.new_tensor([size[1] / width, size[0] / height])[:, None, None]
    flow = F.adaptive_avg_pool2d(link.flow, size) * ratio
    return Link(link.frame, link.other, flow, F.adaptive_avg_pool2d(link.weight, size))


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
        weights = [self._weigh_image(link) * link.weight for link in self.links]
        change = _average(values, values, self.links, weights) - values
        coarse = blur(change, _COARSE)
        return (values + coarse + fine * (change - coarse)).to(images.dtype)

    @torch.no_grad()
    def apply_to_latents(self, latents: Tensor) -> Tensor:
        """Latents [N, C, h, w] of denoised estimates, of which coarse differences are evened out.

        The rows of finished keyframes come back as they are.
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
    """Each frame's own values, weight 1, and those that it sees of others; [N, C, H, W]."""
    total, whole = own.clone(), torch.ones_like(own[:, :1])
    for link, weight in zip(links, weights, strict=True):
        total[link.frame] += weight * warp(others[link.other, None], link.flow[None])[0]
        whole[link.frame] += weight
    return total / whole
