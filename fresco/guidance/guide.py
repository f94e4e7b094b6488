"""The guide of one batch, which the host's hooks call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from fresco.errors import HostError
from fresco.guidance.attention import guide_attention
from fresco.guidance.batch import BatchGuidance
from fresco.guidance.freeu import FreeU
from fresco.guidance.parts import (
    AttentionGuidance,
    ImageSmoothing,
    make_feature_parts,
    uses_spatial_loss,
)
from fresco.guidance.ports import Chunk, Projections, Rows, Site, Step
from fresco.guidance.reference import SpatialReference
from fresco.guidance.schedule import GuidanceSchedule
from fresco.guidance.sending import send
from fresco.guidance.smoothing import grow_occlusions
from fresco.settings import GuidanceSettings


class FrescoGuide:
    """Guides the sampling of one batch; the host calls it as `ports.SamplingGuide`.

    It checks the layout of the rows, and passes each chunk to the parts that act at this model
    call. The parts are in `parts`.
    """

    def __init__(
        self, batch: BatchGuidance, settings: GuidanceSettings, model_sigmas: Sequence[float]
    ) -> None:
        self._batch = batch
        self._schedule = GuidanceSchedule(settings, model_sigmas)
        self._reference = SpatialReference(
            inputs=settings.spatial_attention, features=uses_spatial_loss(settings)
        )
        self._attention = AttentionGuidance(batch, settings, self._reference, self._schedule)
        self._consensus = send(batch.consensus, batch.device)
        self._images: ImageSmoothing | None = None
        if settings.background_smoothing and batch.saliency is not None:
            made = (batch.saliency, grow_occlusions(batch.flow))
            self._images = ImageSmoothing(
                *send(made, batch.device), self._schedule.smooths,
                self._consensus.finished if self._consensus else None,
            )
        self._features = make_feature_parts(
            batch, settings, self._reference, self._schedule,
            saliency=self._images.saliency if self._images is not None else None,
        )
        self._freeu = FreeU.of(settings)
        self._capturing = False
        self._step: Step | None = None

    @property
    def wants_reference(self) -> bool:
        """Whether a part that is on needs the reference pass."""
        return self._reference.wanted

    @property
    def wants_smoothing(self) -> bool:
        """Whether denoised estimates may be changed at any call."""
        return self._images is not None or self._consensus is not None

    def begin(self, sigmas: Sequence[float]) -> None:
        """Receive the noise levels of all model calls before the first one."""
        self._schedule.begin(sigmas)
        self._step = None

    def step(self, step: Step) -> None:
        """Receive the model call that comes next."""
        self._step = step

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Within the context, a UNet call is recorded as the spatial reference and not changed."""
        if self._capturing:
            raise HostError("the reference pass began twice; end the first one before.")
        self._reference.clear()
        self._capturing = True
        try:
            yield
        finally:
            self._capturing = False

    def steers(self, step: Step) -> bool:
        """Whether the latents of denoised estimates are changed at this call."""
        return self._consensus is not None and self._schedule.steers(step)

    def steer(self, latents: Tensor) -> Tensor:
        """Make the coarse content of latents of denoised estimates agree; [N, C, h, w]."""
        if self._consensus is None:
            raise HostError("nothing is steered here; ask steers() before steer().")
        return self._consensus.apply_to_latents(latents)

    def smooths(self, step: Step) -> bool:
        """Whether denoised estimates are changed at this call."""
        agrees = self._consensus is not None and self._schedule.agrees(step)
        return agrees or (self._images is not None and self._images.acts(step))

    def smooth(self, images: Tensor) -> Tensor:
        """Make images [N, 3, H, W] in [-1, 1] agree, and smooth their background.

        Each is done only if it is on and acts at the present call.
        """
        step = self._require_step()
        if not self.smooths(step):
            raise HostError("nothing is smoothed at this call; ask smooths() before smooth().")
        if self._consensus is not None and self._schedule.agrees(step):
            images = self._consensus.apply(
                images, self._schedule.share_fine(step), colours=self._schedule.agrees_last(step)
            )
        if self._images is not None and self._images.acts(step):
            images = self._images.apply(images)
        return images

    def decoder_entry(self, stage: int, h: Tensor, rows: Rows) -> Tensor:
        """Optimise and smooth the input of a decoder stage, [rows, C, H, W]."""
        self._require_whole_chunks(h, rows)
        if self._capturing:
            for chunk, frames in _split_chunks(h, rows):
                self._reference.record_feature(stage, frames, chunk)
            return h
        step = self._require_step()
        acting = [part for part in self._features if part.acts(step)]
        if acting:
            def apply_all(frames: Tensor, chunk: Chunk) -> Tensor:
                for part in acting:
                    frames = part.apply(frames, stage, chunk)
                return frames

            h = _map_chunks(apply_all, h, rows)
        return h

    def decoder_block(
        self, stage: int, h: Tensor, skip: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor]:
        """Apply FreeU, if it is on, to the input of a decoder block and its skip."""
        self._require_whole_chunks(h, rows)
        return (h, skip) if self._capturing else self._freeu.apply(stage, h, skip)

    def self_attention(
        self, site: Site, x: Tensor, project: Projections, rows: Rows
    ) -> Tensor | None:
        """Guided self-attention of [rows, HW, C]; None if the host should use its own."""
        self._require_whole_chunks(x, rows)
        if self._capturing:
            for chunk, frames in _split_chunks(x, rows):
                self._reference.record_input(site, frames, chunk)
            return None
        step, tokens = self._require_step(), x.shape[1]
        parts = {c: self._attention.choose(site, tokens, c, step) for c in rows.chunks}
        if not any(each.any for each in parts.values()):
            return None
        return _map_chunks(
            lambda frames, chunk: guide_attention(frames, project, parts[chunk]), x, rows
        )

    def _require_step(self) -> Step:
        if self._step is None:
            raise HostError("the model was called before step(); announce every model call.")
        return self._step

    def _require_whole_chunks(self, x: Tensor, rows: Rows) -> None:
        frames = len(self._batch.flow.forward)
        if rows.frames != frames or len(x) != rows.count:
            raise HostError(
                f"the model was called with {len(x)} rows said to be {rows.frames} frames in "
                f"{len(rows.chunks)} chunks, but the batch has {frames} frames; call it with "
                "whole chunks of the batch (AND in a prompt breaks them: remove it)."
            )


def _split_chunks(x: Tensor, rows: Rows) -> Iterator[tuple[Chunk, Tensor]]:
    """Yield the chunks with their rows, in order."""
    for number, chunk in enumerate(rows.chunks):
        yield chunk, x[number * rows.frames : (number + 1) * rows.frames]


def _map_chunks(work: Callable[[Tensor, Chunk], Tensor], x: Tensor, rows: Rows) -> Tensor:
    """Apply `work` to every chunk; the results are in the order of the rows."""
    if len(rows.chunks) == 1:
        return work(x, rows.chunks[0])
    result = torch.empty_like(x, memory_format=torch.contiguous_format)
    for number, (chunk, frames) in enumerate(_split_chunks(x, rows)):
        result[number * rows.frames : (number + 1) * rows.frames] = work(frames, chunk)
    return result
