"""Make the guide of a batch from the flow, correspondence and saliency of its frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fresco.flow.estimator import create_estimator
from fresco.flow.interface import FlowEstimator
from fresco.flow.occlusion import ring_flow
from fresco.guidance.batch import ATTENTION_SCALES, BatchGuidance, find_attention_scales
from fresco.guidance.consensus import Consensus, link_frames
from fresco.guidance.guide import FrescoGuide
from fresco.guidance.ports import GuidedUNet
from fresco.guidance.saliency import compute_saliency
from fresco.settings import FrescoSettings


@dataclass(frozen=True, slots=True)
class GuideMaker:
    """Makes the guides of a run's batches."""

    settings: FrescoSettings
    """All options."""
    estimator: FlowEstimator
    """Estimates optical flow."""
    device: str
    """Device of the model."""
    model_sigmas: Sequence[float]
    """Noise level of every training timestep, rising."""

    @classmethod
    def create(
        cls, settings: FrescoSettings, device: str, model_sigmas: Sequence[float]
    ) -> GuideMaker:
        """Create it with the estimator that the settings name."""
        return cls(settings, create_estimator(settings.flow, device), device, model_sigmas)

    def guide(
        self, frames: NDArray[np.uint8], unet: GuidedUNet | None = None, *,
        finished: NDArray[np.uint8] | None = None, prompts: Sequence[str] = (),
    ) -> FrescoGuide:
        """Make the guide of a batch.

        Args:
            frames: [N, H, W, 3] RGB at working size.
            finished: [2, H, W, 3] RGB, the translated images of the first two frames, from the
                batch before; None if these frames are new.
            prompts: prompt of every frame; empty if all are the same.
            unet: the UNet to guide; None: one of SD 1.x or 2.x.
        """
        guidance = self.settings.guidance
        flow = ring_flow(frames, self.estimator)
        saliency = None
        if guidance.background_smoothing:
            saliency = compute_saliency(frames, flow, guidance.saliency, self.settings.flow)
        images = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
        scales = find_attention_scales(unet) if unet is not None else ATTENTION_SCALES
        batch = BatchGuidance.build(
            images, flow, saliency, guidance, self.device, scales=scales
        )
        if guidance.consensus:
            consensus = self._agree(images, batch, finished, prompts)
            batch = dataclasses.replace(batch, consensus=consensus)
        return FrescoGuide(batch, guidance, self.model_sigmas)

    def _agree(
        self, images: Tensor, batch: BatchGuidance, finished: NDArray[np.uint8] | None,
        prompts: Sequence[str],
    ) -> Consensus:
        links = link_frames(
            images, batch.flow, self.estimator, carried=finished is not None, prompts=prompts
        )
        pictures = None
        if finished is not None:
            pictures = torch.from_numpy(finished).permute(0, 3, 1, 2).float() / 127.5 - 1
        return Consensus(links, pictures)
