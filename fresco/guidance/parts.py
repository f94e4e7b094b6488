"""The parts of the guidance that depend on the batch, with their state and when they act."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fresco.errors import HostError
from fresco.flow.occlusion import BidirectionalFlow
from fresco.guidance.attention import AttentionParts, Chains
from fresco.guidance.batch import BatchGuidance
from fresco.guidance.motion import FeatureMotion, make_feature_motion
from fresco.guidance.optimization import Descent, OptimizationTarget, optimize_feature
from fresco.guidance.portions import split_frames
from fresco.guidance.ports import Chunk, Site, Step
from fresco.guidance.reference import SpatialReference
from fresco.guidance.schedule import GuidanceSchedule
from fresco.guidance.sending import send
from fresco.guidance.smoothing import smooth_background
from fresco.settings import GuidanceSettings

Window = Callable[[Step], bool]
"""Whether a part acts at a model call."""


class FeaturePart(Protocol):
    """Changes what enters a decoder stage, one chunk at a time."""

    @property
    def acts(self) -> Window:
        """The model calls at which it acts."""
        ...

    def apply(self, h: Tensor, stage: int, chunk: Chunk) -> Tensor:
        """Change the feature of one chunk, [N, C, H, W]."""
        ...


class BatchMotion:
    """The motion of a batch for features of any size, made and sent once for each size."""

    def __init__(self, flow: BidirectionalFlow) -> None:
        self._flow = flow
        self._known: dict[tuple[int, int], FeatureMotion] = {}

    def at(self, feature: Tensor) -> FeatureMotion:
        """The motion at the size of a feature [N, C, H, W]."""
        size = (feature.shape[-2], feature.shape[-1])
        if size not in self._known:
            groups = split_frames(len(feature), feature[0].numel(), feature.device)
            motion = make_feature_motion(self._flow, size, groups=groups)
            self._known[size] = send(motion, feature.device)
        return self._known[size]


@dataclass(frozen=True, slots=True)
class FeatureOptimization:
    """Feature optimisation (docs/method.md, section 7)."""

    settings: GuidanceSettings
    """Which losses, and how they are descended."""
    reference: SpatialReference
    """Target of the spatial loss."""
    motion: BatchMotion
    """Motion for the temporal loss."""
    acts: Window
    """When it acts."""

    def apply(self, h: Tensor, stage: int, chunk: Chunk) -> Tensor:
        """The optimised feature of one chunk, [N, C, H, W]."""
        settings = self.settings
        spatial = uses_spatial_loss(settings)
        temporal = settings.temporal_optimization and len(h) > 1
        if not (spatial or temporal):
            return h
        target = OptimizationTarget(
            self.reference.tokens(stage, chunk) if spatial else None,
            self.motion.at(h) if temporal else None,
            settings.spatial_weight,
        )
        descent = Descent(settings.optimization_iterations, settings.optimization_rate)
        return optimize_feature(h, target, descent, plain_statistics=settings.plain_statistics)


@dataclass(frozen=True, slots=True)
class FeatureSmoothing:
    """Background smoothing of features (docs/method.md, section 8)."""

    saliency: Tensor
    """[N, 1, h, w], 1 = background."""
    motion: BatchMotion
    """Motion along which the background is carried."""
    acts: Window
    """When it acts."""

    def apply(self, h: Tensor, stage: int, chunk: Chunk) -> Tensor:
        """The smoothed feature of one chunk, [N, C, H, W]."""
        return smooth_background(h, self.motion.at(h).flow, self.saliency)


@dataclass(frozen=True, slots=True)
class ImageSmoothing:
    """Background smoothing of denoised estimates (docs/method.md, section 8)."""

    saliency: Tensor
    """[N, 1, h, w], 1 = background."""
    ring: BidirectionalFlow
    """Flow at working size, with enlarged occlusions."""
    acts: Window
    """When it acts."""
    finished: Tensor | None = None
    """[2, 3, H, W] in [-1, 1], finished keyframes that stay as they are; None: there are none."""

    def apply(self, images: Tensor) -> Tensor:
        """The smoothed images [N, 3, H, W], in [-1, 1]."""
        height, width = self.ring.forward.shape[-2:]
        if tuple(images.shape[-2:]) != (height, width):
            raise HostError(
                f"images are {images.shape[-1]}x{images.shape[-2]}, the batch's flow "
                f"{width}x{height}; decode at the working size."
            )
        if self.finished is None:
            return smooth_background(images, self.ring, self.saliency)
        fixed = len(self.finished)
        images = torch.cat([self.finished.to(images.dtype), images[fixed:]])
        return smooth_background(images, self.ring, self.saliency, fixed=fixed)


class AttentionGuidance:
    """Chooses what guides each self-attention layer (docs/method.md, section 6)."""

    def __init__(
        self, batch: BatchGuidance, settings: GuidanceSettings, reference: SpatialReference,
        schedule: GuidanceSchedule,
    ) -> None:
        self._settings, self._reference, self._schedule = settings, reference, schedule
        self._device = batch.device
        # Indices, made once. Selecting by a mask would wait for the device each time.
        made = (
            tuple(mask.flatten().nonzero()[:, 0] for mask in batch.masks.values()),
            tuple(Chains.of(paths.to_first, paths.linked) for paths in batch.chains.values()),
        )
        keys, chains = send(made, batch.device)
        self._keys = dict(zip(batch.masks, keys, strict=True))
        self._chains = dict(zip(batch.chains, chains, strict=True))

    def choose(self, site: Site, tokens: int, chunk: Chunk, step: Step) -> AttentionParts:
        """What guides a layer of `tokens` tokens a frame at a model call."""
        on = self._settings
        spatial = on.spatial_attention and self._schedule.is_first(step)
        temporal = on.temporal_attention and self._schedule.follows_chains(step)
        return AttentionParts(
            self._find_keys(tokens) if on.cross_frame_attention else None,
            self._reference.input(site, chunk) if spatial else None,
            self._find_chains(tokens) if temporal else None,
        )

    def _find_keys(self, tokens: int) -> Tensor:
        """Tokens that all frames attend to; those of frame 0 if no mask has this size."""
        if tokens not in self._keys:
            self._keys[tokens] = torch.arange(tokens, device=self._device)
        return self._keys[tokens]

    def _find_chains(self, tokens: int) -> Chains:
        if tokens not in self._chains:
            known = ", ".join(str(count) for count in sorted(self._chains)) or "none"
            raise HostError(
                f"an attention layer has {tokens} tokens, but motion paths exist for {known}; "
                "switch off token merging and hypertile, or temporal_attention."
            )
        return self._chains[tokens]


def uses_spatial_loss(settings: GuidanceSettings) -> bool:
    """Whether features are optimised toward the source's self-similarity."""
    return settings.spatial_optimization and settings.spatial_weight > 0


def make_feature_parts(
    batch: BatchGuidance, settings: GuidanceSettings, reference: SpatialReference,
    schedule: GuidanceSchedule, *, saliency: Tensor | None,
) -> tuple[FeaturePart, ...]:
    """Make the parts that are on, in the order in which they are applied.

    Args:
        saliency: background mask, on the device; None if background smoothing is off.
    """
    motion, acts = BatchMotion(batch.flow), schedule.optimizes
    parts: list[FeaturePart] = []
    if uses_spatial_loss(settings) or settings.temporal_optimization:
        parts.append(FeatureOptimization(settings, reference, motion, acts))
    if saliency is not None:
        parts.append(FeatureSmoothing(saliency, motion, acts))
    return tuple(parts)
