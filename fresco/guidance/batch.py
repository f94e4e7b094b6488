"""Flow, masks, motion paths and saliency of a batch, computed before it is sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fresco.errors import HostError
from fresco.flow.correspondence import Correspondence, key_mask, trace_chains
from fresco.flow.occlusion import BidirectionalFlow
from fresco.guidance.consensus import Consensus
from fresco.guidance.ports import GuidedUNet
from fresco.settings import GuidanceSettings

ATTENTION_SCALES = (8, 16)
"""Side of a token in pixels, in the two finest stages of SD 1.x and 2.x that have attention
(docs/method.md, section 6)."""
LATENT_SCALE = 8
"""Side in pixels of a latent, which is a token of the finest decoder stage."""


def find_attention_scales(unet: GuidedUNet) -> tuple[int, ...]:
    """Side of a token in pixels, in the stages whose attention is guided, finest first."""
    finest = len(unet.stages) - 1
    stages = {site.stage for site in unet.sites}
    return tuple(LATENT_SCALE * 2 ** (finest - stage) for stage in sorted(stages, reverse=True))


@dataclass(frozen=True, slots=True)
class BatchGuidance:
    """Flow, masks, motion paths and saliency of a batch, on the CPU.

    They are computed there for every device, because MPS gives wrong results for sorting whole
    numbers and for finding the smallest one. Each part of the guidance sends what it needs to the
    device, once.
    """

    flow: BidirectionalFlow
    """Flow and occlusion of the batch's ring at working size."""
    masks: Mapping[int, Tensor]
    """By number of tokens: [N, HW] bool, the tokens that all frames attend to."""
    chains: Mapping[int, Correspondence]
    """By number of tokens: motion paths."""
    saliency: Tensor | None
    """[N, 1, h, w], 1 = background; None without background smoothing."""
    size: tuple[int, int]
    """Working height and width."""
    device: torch.device
    """Device of the model."""
    consensus: Consensus | None = None
    """Makes denoised estimates agree; None if it is off."""

    @classmethod
    @torch.no_grad()
    def build(
        cls, images: Tensor, flow: BidirectionalFlow, saliency: Tensor | None,
        settings: GuidanceSettings, device: torch.device | str,
        *, scales: Sequence[int] = ATTENTION_SCALES,
    ) -> BatchGuidance:
        """Prepare a batch.

        Args:
            images: [N, 3, H, W] in 0..255.
            flow: flow of the same frames in a ring.
            saliency: [N, 1, h, w], 1 = background; needed only by background smoothing.
            device: device of the model.
            scales: scales of the model's guided attention, see `find_attention_scales`.
        """
        if settings.background_smoothing and saliency is None:
            raise HostError("background_smoothing is on but there is no saliency; compute it.")
        images, flow = images.cpu(), flow.to("cpu")
        masks, chains = {}, {}
        for scale in scales:
            if settings.cross_frame_attention:
                mask = key_mask(flow.backward_occlusion, scale)
                masks[mask.shape[1]] = mask
            if settings.temporal_attention:
                paths = trace_chains(images, flow, scale)
                chains[paths.to_first.shape[1]] = paths
        kept = saliency.cpu() if saliency is not None else None
        size = (images.shape[-2], images.shape[-1])
        return cls(flow, masks, chains, kept, size, torch.device(device))
