"""The model of one batch: a guided UNet with classifier-free guidance and ControlNet."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor

from fresco.control import ControlUnit
from fresco.errors import OutOfMemoryError
from fresco.guidance.ports import Chunk, Rows, Step
from fresco.hosts.devices import find_dtype
from fresco.hosts.diffusers.conditioning import Conditioning
from fresco.hosts.diffusers.unet import DiffusersUNet
from fresco.memory import memory_errors

log = logging.getLogger("fresco")


_SOFTER = 0.825
"""What each layer away from the middle keeps of a ControlNet's effect where the prompt counts more,
and where the ControlNet acts on the prompt's side alone (ControlNet 1.1)."""


@dataclass(frozen=True, slots=True)
class Control:
    """A ControlNet for one batch."""

    network: Any
    """ControlNetModel."""
    hints: Tensor
    """[N, 3, H, W] in 0..1."""
    unit: ControlUnit
    """Strength, share of the steps, and mode."""

    def acts(self, share: float) -> bool:
        """Whether it acts after this share of the steps; one may begin where another ends."""
        return self.unit.start <= share < self.unit.end

    def residuals(
        self, inputs: Tensor, t: Tensor, conditioning: dict[str, Any], chunks: Sequence[Chunk]
    ) -> list[Tensor]:
        """Compute what the network adds to the UNet's skips, and last to its middle block."""
        hints = self.hints.to(self.network.dtype).repeat(len(chunks), 1, 1, 1)
        down, middle = self.network(
            inputs, t, controlnet_cond=hints, conditioning_scale=self.unit.weight,
            return_dict=False, **conditioning,
        )
        every = [*down, middle]
        if self.unit.control_mode == "balanced":
            return every
        last = len(every) - 1
        every = [each * _SOFTER ** (last - place) for place, each in enumerate(every)]
        return every if self.unit.control_mode == "prompt" else [
            each * _weigh_rows(each, len(self.hints), chunks) for each in every
        ]


def _weigh_rows(like: Tensor, frames: int, chunks: Sequence[Chunk]) -> Tensor:
    """Weights [rows, 1, 1, 1]: 1 for rows of the prompt, 0 for those of the negative prompt."""
    weights = [float(chunk == "positive") for chunk in chunks for _ in range(frames)]
    return torch.tensor(weights, dtype=like.dtype, device=like.device)[:, None, None, None]


def _add(units: Sequence[Sequence[Tensor]]) -> dict[str, Any]:
    """Add up the outputs of several ControlNets, as the UNet takes them."""
    if not units:
        return {}
    *down, middle = (functools.reduce(torch.add, each) for each in zip(*units, strict=True))
    return {
        "down_block_additional_residuals": tuple(down), "mid_block_additional_residual": middle,
    }


class Denoiser:
    """Computes model outputs of all frames of a batch, with classifier-free guidance."""

    def __init__(
        self, adapter: DiffusersUNet, positive: Conditioning, negative: Conditioning, *,
        scale: float, controls: Sequence[Control] = (), one_call: bool = True,
    ) -> None:
        """
        Args:
            scale: classifier-free guidance; the negative chunk is left out at 1 or less, and for
                a distilled model that takes the scale as an input
            one_call: start with all chunks in one call of the UNet; once memory runs out, each
                has its own call, and the host passes that on to the next batch
        """
        self._adapter, self._scale, self._controls = adapter, scale, tuple(controls)
        self._share = 0.0
        self._conditioning: dict[Chunk, Conditioning] = {"positive": positive}
        self._scale_width: int = adapter.unet.config.get("time_cond_proj_dim") or 0
        if scale > 1 and not self._scale_width:
            self._conditioning = {"negative": negative, "positive": positive}
        self.one_call = one_call

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """Chunks in the order of the rows; diffusers puts the negative one first."""
        return tuple(self._conditioning)

    def begin_call(self, step: Step) -> None:
        """Set the step of the next call, by which ControlNets begin and end."""
        self._share = step.index / step.count

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor, *, controlled: bool = True) -> Tensor:
        """Compute the model output [N, C, h, w] in float32, guidance applied."""
        outputs = self._evaluate_chunks(x, t, controlled)
        if len(outputs) == 1:
            return outputs[0]
        negative, positive = outputs
        return negative + self._scale * (positive - negative)

    def _evaluate_chunks(self, x: Tensor, t: Tensor, controlled: bool) -> list[Tensor]:
        chunks = self.chunks
        # If prompts and negative prompts differ in length, each has its own call, as in the WebUI.
        lengths = {part.tokens.shape[1] for part in self._conditioning.values()}
        if self.one_call and len(chunks) > 1 and len(lengths) == 1:
            try:
                return list(self._evaluate(x, t, chunks, controlled).chunk(len(chunks)))
            except OutOfMemoryError as error:
                log.warning("%s Continuing with one conditioning a call, which is slower.", error)
                self.one_call = False
        return [self._evaluate(x, t, (chunk,), controlled) for chunk in chunks]

    def _evaluate(
        self, x: Tensor, t: Tensor, chunks: tuple[Chunk, ...], controlled: bool
    ) -> Tensor:
        unet = self._adapter.unet
        rows, dtype = Rows(len(x), chunks), find_dtype(unet)
        inputs = x.to(dtype).repeat(len(chunks), 1, 1, 1)
        rows_of_chunks = [self._conditioning[chunk] for chunk in chunks]
        conditioning = Conditioning.concatenate(rows_of_chunks).arguments(dtype)
        with memory_errors(f"with a batch of {len(x)} frames"), self._adapter.calling(rows):
            further = _add([
                control.residuals(inputs, t, conditioning, chunks) for control in self._controls
                if controlled and control.acts(self._share)
            ])
            if self._scale_width:
                further["timestep_cond"] = embed_scale(self._scale, self._scale_width).to(
                    inputs
                ).expand(len(inputs), -1)
            output = unet(inputs, t, return_dict=False, **conditioning, **further)
        return output[0].float()


def embed_scale(scale: float, width: int) -> Tensor:
    """Encode the guidance scale for a distilled model, [1, width]: sines and cosines.

    LCM (arXiv 2310.04378) was trained with a scale that is smaller by 1 than the usual one.
    """
    return get_timestep_embedding(
        1000 * torch.tensor([scale - 1.0]), width, flip_sin_to_cos=False, downscale_freq_shift=1
    )
