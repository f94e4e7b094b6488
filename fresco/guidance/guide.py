"""One batch's guidance: what the host's hooks meet.

`BatchGuidance` is what a batch knows before sampling, prepared once; `FrescoGuide` decides at
every model call which parts act and applies them chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fresco.errors import HostError
from fresco.flow.correspondence import Correspondence, key_mask, trace_chains
from fresco.flow.occlusion import BidirectionalFlow
from fresco.guidance.attention import AttentionParts, Chains, guide_attention
from fresco.guidance.freeu import damp_low_frequencies, scale_backbone
from fresco.guidance.motion import FeatureMotion, make_feature_motion
from fresco.guidance.optimization import Descent, OptimizationTarget, optimize_feature
from fresco.guidance.ports import Chunk, GuidedUNet, Projections, Rows, Site, Step
from fresco.guidance.reference import SpatialReference
from fresco.guidance.schedule import GuidanceSchedule
from fresco.guidance.smoothing import grow_occlusions, smooth_background
from fresco.settings import GuidanceSettings

ATTENTION_SCALES = (8, 16)
"""Pixels along a side of a token, in the two finest stages with attention of SD 1.x and 2.x
(docs/method.md, section 6)."""
LATENT_SCALE = 8
"""Pixels a latent's side covers, the finest decoder stage's."""


def find_attention_scales(unet: GuidedUNet) -> tuple[int, ...]:
    """Pixels a token side covers in the stages whose self-attention is guided, finest first."""
    finest = len(unet.stages) - 1
    stages = {site.stage for site in unet.sites}
    return tuple(LATENT_SCALE * 2 ** (finest - stage) for stage in sorted(stages, reverse=True))


@dataclass(frozen=True, slots=True)
class BatchGuidance:
    """What is known of a batch before it is sampled, on the model's device."""

    flow: BidirectionalFlow
    """Flow and occlusion of the batch's ring at working size."""
    masks: Mapping[int, Tensor]
    """By token count: [N, HW] bool, tokens that all frames look at."""
    chains: Mapping[int, Correspondence]
    """By token count: motion paths."""
    saliency: Tensor | None
    """[N, 1, h, w], 1 = background; None without background smoothing."""
    size: tuple[int, int]
    """Working height and width."""

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
            flow: of the same frames in a ring.
            saliency: [N, 1, h, w], 1 = background; needed by background smoothing only.
            scales: of the model's guided attention, see `find_attention_scales`.
        """
        if settings.background_smoothing and saliency is None:
            raise HostError("background_smoothing is on but there is no saliency; compute it.")
        images, flow = images.to(device), flow.to(device)
        masks, chains = {}, {}
        for scale in scales:
            if settings.cross_frame_attention:
                mask = key_mask(flow.backward_occlusion, scale)
                masks[mask.shape[1]] = mask
            if settings.temporal_attention:
                paths = trace_chains(images, flow, scale)
                chains[paths.to_first.shape[1]] = paths
        kept = saliency.to(device) if saliency is not None else None
        size = (images.shape[-2], images.shape[-1])
        return cls(flow, masks, chains, kept, size)


class FrescoGuide:
    """Guides the sampling of one batch; the host calls it as `ports.SamplingGuide`."""

    def __init__(
        self, batch: BatchGuidance, settings: GuidanceSettings, model_sigmas: Sequence[float]
    ) -> None:
        self._batch, self._settings = batch, settings
        self._schedule = GuidanceSchedule(settings, model_sigmas)
        self._reference = SpatialReference()
        self._capturing = False
        self._step: Step | None = None
        # Places instead of masks, made once: picking by mask would wait for the device each time.
        self._keys = {n: mask.flatten().nonzero()[:, 0] for n, mask in batch.masks.items()}
        self._chains = {n: Chains.of(c.to_first, c.linked) for n, c in batch.chains.items()}
        self._motions: dict[tuple[int, int], FeatureMotion] = {}
        self._images = grow_occlusions(batch.flow) if settings.background_smoothing else None

    @property
    def wants_reference(self) -> bool:
        """Whether a reference pass is of any use with the parts that are on."""
        return self._settings.spatial_attention or self._spatial_loss

    @property
    def _spatial_loss(self) -> bool:
        return self._settings.spatial_optimization and self._settings.spatial_weight > 0

    def begin(self, sigmas: Sequence[float]) -> None:
        """Take the noise level of every model call to come."""
        self._schedule.begin(sigmas)
        self._step = None

    def step(self, step: Step) -> None:
        """Take the model call that comes next."""
        self._step = step

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Within: one UNet call whose inputs become the spatial reference; nothing is changed."""
        if self._capturing:
            raise HostError("the reference pass began twice; end the first one before.")
        self._reference, self._capturing = SpatialReference(), True
        try:
            yield
        finally:
            self._capturing = False

    def smooths(self, step: Step) -> bool:
        """Whether the background of the denoised estimate is smoothed at this call."""
        return self._settings.background_smoothing and self._schedule.smooths(step)

    def smooth(self, images: Tensor) -> Tensor:
        """Smooth the background of [N, 3, H, W] in [-1, 1]."""
        if self._images is None or self._batch.saliency is None:
            raise HostError("background_smoothing is off; ask smooths() before smooth().")
        if tuple(images.shape[-2:]) != self._batch.size:
            raise HostError(
                f"images are {images.shape[-1]}x{images.shape[-2]}, the batch's flow "
                f"{self._batch.size[1]}x{self._batch.size[0]}; decode at the working size."
            )
        return smooth_background(images, self._images, self._batch.saliency)

    def decoder_entry(self, stage: int, h: Tensor, rows: Rows) -> Tensor:
        """Optimise, smooth and (FreeU) strengthen the input of a decoder stage, [rows, C, H, W]."""
        self._checked(h, rows)
        if self._capturing:
            if self._spatial_loss:
                for chunk, part in _chunks(h, rows):
                    self._reference.record_feature(stage, part, chunk)
            return h
        if self._optimizes() and self._schedule.optimizes(self._current()):
            _require_finite(h, stage)
            h = _by_chunk(h, rows, lambda part, chunk: self._optimized(stage, part, chunk))
        return scale_backbone(h, self._backbone_factor(stage))

    def decoder_skip(self, stage: int, skip: Tensor, rows: Rows) -> Tensor:
        """Damp the low frequencies of a decoder stage's first skip if FreeU is on."""
        self._checked(skip, rows)
        factors = (self._settings.freeu_s1, self._settings.freeu_s2)
        if self._capturing or stage >= len(factors):
            return skip
        return damp_low_frequencies(skip, factors[stage])

    def self_attention(
        self, site: Site, x: Tensor, project: Projections, rows: Rows
    ) -> Tensor | None:
        """Guided self-attention of [rows, HW, C]; None: the host's own."""
        self._checked(x, rows)
        if self._capturing:
            if self._settings.spatial_attention:
                for chunk, part in _chunks(x, rows):
                    self._reference.record_input(site, part, chunk)
            return None
        step = self._current()
        parts = {c: self._parts(site, x.shape[1], c, step) for c in rows.chunks}
        if not any(part.any for part in parts.values()):
            return None
        return _by_chunk(
            x, rows, lambda part, chunk: guide_attention(part, project, parts[chunk])
        )

    def _current(self) -> Step:
        if self._step is None:
            raise HostError("the model was called before step(); announce every model call.")
        return self._step

    def _checked(self, x: Tensor, rows: Rows) -> None:
        frames = len(self._batch.flow.forward)
        if rows.frames != frames or len(x) != rows.count:
            raise HostError(
                f"the model was called with {len(x)} rows said to be {rows.frames} frames in "
                f"{len(rows.chunks)} chunks, but the batch has {frames} frames; call it with "
                "whole chunks of the batch (AND in a prompt breaks them: remove it)."
            )

    def _parts(self, site: Site, tokens: int, chunk: Chunk, step: Step) -> AttentionParts:
        on = self._settings
        spatial = on.spatial_attention and self._schedule.is_first(step)
        temporal = on.temporal_attention and self._schedule.follows_chains(step)
        return AttentionParts(
            self._places(tokens) if on.cross_frame_attention else None,
            self._reference.input(site, chunk) if spatial else None,
            self._paths(tokens) if temporal else None,
        )

    def _places(self, tokens: int) -> Tensor:
        """Tokens that all frames attend to; frame 0's where no mask has this size."""
        if tokens not in self._keys:
            self._keys[tokens] = torch.arange(tokens, device=self._batch.flow.forward.device)
        return self._keys[tokens]

    def _paths(self, tokens: int) -> Chains:
        if tokens not in self._chains:
            known = ", ".join(str(count) for count in sorted(self._chains)) or "none"
            raise HostError(
                f"an attention layer has {tokens} tokens, but motion paths exist for {known}; "
                "switch off token merging and hypertile, or temporal_attention."
            )
        return self._chains[tokens]

    def _optimized(self, stage: int, h: Tensor, chunk: Chunk) -> Tensor:
        """One chunk of a decoder stage's input, optimised and smoothed."""
        on, size = self._settings, (h.shape[-2], h.shape[-1])
        temporal = on.temporal_optimization and len(h) > 1
        if self._spatial_loss or temporal:
            target = OptimizationTarget(
                self._reference.tokens(stage, chunk) if self._spatial_loss else None,
                self._motion(size) if temporal else None,
                on.spatial_weight,
            )
            descent = Descent(on.optimization_iterations, on.optimization_rate)
            h = optimize_feature(h, target, descent, plain_statistics=on.plain_statistics)
        if on.background_smoothing and self._batch.saliency is not None:
            h = smooth_background(h, self._motion(size).flow, self._batch.saliency)
        return h

    def _motion(self, size: tuple[int, int]) -> FeatureMotion:
        if size not in self._motions:
            self._motions[size] = make_feature_motion(self._batch.flow, size)
        return self._motions[size]

    def _optimizes(self) -> bool:
        on = self._settings
        return self._spatial_loss or on.temporal_optimization or on.background_smoothing

    def _backbone_factor(self, stage: int) -> float:
        factors = (self._settings.freeu_b1, self._settings.freeu_b2)
        return factors[stage] if stage < len(factors) else 1.0


def _require_finite(h: Tensor, stage: int) -> None:
    if not bool(torch.isfinite(h).all()):
        raise HostError(
            f"the input of decoder stage {stage} has NaN or infinite values; try another dtype "
            "(float32 or bfloat16) or another checkpoint."
        )


def _chunks(x: Tensor, rows: Rows) -> Iterator[tuple[Chunk, Tensor]]:
    """Chunks and their rows, in order."""
    for number, chunk in enumerate(rows.chunks):
        yield chunk, x[number * rows.frames : (number + 1) * rows.frames]


def _by_chunk(x: Tensor, rows: Rows, work: Callable[[Tensor, Chunk], Tensor]) -> Tensor:
    """`work` on every chunk, results in the order of the rows."""
    if len(rows.chunks) == 1:
        return work(x, rows.chunks[0])
    result = torch.empty_like(x, memory_format=torch.contiguous_format)
    for number, (chunk, part) in enumerate(_chunks(x, rows)):
        result[number * rows.frames : (number + 1) * rows.frames] = work(part, chunk)
    return result
