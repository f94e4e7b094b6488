"""The model of one batch: classifier-free guidance and ControlNet around a guided UNet."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from fresco.errors import OutOfMemoryError
from fresco.guidance.ports import Chunk, Rows
from fresco.hosts.diffusers.unet import DiffusersUNet
from fresco.hosts.memory import memory_errors

log = logging.getLogger("fresco")


class Denoiser:
    """Model outputs of all frames of a batch, chunk by chunk or in one call."""

    def __init__(
        self, adapter: DiffusersUNet, positive: Tensor, negative: Tensor, *, scale: float,
        one_call: bool = True,
    ) -> None:
        """
        Args:
            positive, negative: conditioning [N, tokens, C]
            scale: classifier-free guidance; at 1 or less the negative chunk is left out
            one_call: whether all chunks are evaluated in one call of the UNet
        """
        self._adapter, self._scale = adapter, scale
        self._text: dict[Chunk, Tensor] = {"positive": positive}
        if scale > 1:
            self._text = {"negative": negative, "positive": positive}
        self.one_call = one_call
        self._control: tuple[Any, Tensor, float] | None = None

    def set_control(self, model: Any, hints: Tensor, weight: float) -> None:
        """Steer by a ControlNet and its hints [N, 3, H, W] in 0..1."""
        self._control = (model, hints, weight)

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """Chunks in the order of the rows; diffusers puts the negative one first."""
        return tuple(self._text)

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor, *, controlled: bool = True) -> Tensor:
        """Model output [N, C, h, w] in float32, guidance applied."""
        outputs = self._outputs(x, t, controlled)
        if len(outputs) == 1:
            return outputs[0]
        negative, positive = outputs
        return negative + self._scale * (positive - negative)

    def _outputs(self, x: Tensor, t: Tensor, controlled: bool) -> list[Tensor]:
        chunks = self.chunks
        if self.one_call and len(chunks) > 1:
            try:
                return list(self._evaluate(x, t, chunks, controlled).chunk(len(chunks)))
            except OutOfMemoryError as error:
                log.warning("%s Going on with one conditioning a call, which is slower.", error)
                self.one_call = False
        return [self._evaluate(x, t, (chunk,), controlled) for chunk in chunks]

    def _evaluate(
        self, x: Tensor, t: Tensor, chunks: tuple[Chunk, ...], controlled: bool
    ) -> Tensor:
        unet = self._adapter.unet
        rows = Rows(len(x), chunks)
        inputs = x.to(unet.dtype).repeat(len(chunks), 1, 1, 1)
        text = torch.cat([self._text[chunk] for chunk in chunks]).to(unet.dtype)
        with memory_errors(f"with a batch of {len(x)} frames"), self._adapter.calling(rows):
            residuals = self._residuals(inputs, t, text, rows) if controlled else {}
            output = unet(inputs, t, encoder_hidden_states=text, return_dict=False, **residuals)
        return output[0].float()

    def _residuals(self, inputs: Tensor, t: Tensor, text: Tensor, rows: Rows) -> dict[str, Any]:
        """What a ControlNet adds to the skips and to the middle."""
        if self._control is None:
            return {}
        model, hints, weight = self._control
        down, middle = model(
            inputs, t, encoder_hidden_states=text, return_dict=False, conditioning_scale=weight,
            controlnet_cond=hints.to(model.dtype).repeat(len(rows.chunks), 1, 1, 1),
        )
        return {
            "down_block_additional_residuals": down, "mid_block_additional_residual": middle,
        }
