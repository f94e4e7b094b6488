"""The two hosts of one set of weights, called alike: chunk by chunk outputs of one evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from fresco.guidance.ports import Chunk, Rows
from fresco.hosts.diffusers.unet import DiffusersUNet
from fresco.hosts.ldm.unet import LdmUNet
from tests.helpers.ldm_unet import (
    CONTEXT,
    POOLED,
    SHAPES,
    TIME_IDS,
    UNetModel,
    diffusers_twin,
    ldm_twin,
)

FRAMES = 3
LATENT = 16
"""Side of the latents; the frames' is eight times that."""
Outputs = Mapping[Chunk, Tensor]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What one evaluation is given."""

    x: Tensor
    """[N, 4, h, w]."""
    text: Mapping[Chunk, Tensor]
    """[N, 77, C] of every chunk."""
    pooled: Tensor
    """[N, POOLED] of SDXL, the same for every chunk."""
    sizes: Tensor
    """[N, TIME_IDS] of SDXL."""
    timestep: int = 401

    def to(self, dtype: torch.dtype) -> Inputs:
        """Latents and conditioning in another dtype."""
        text: dict[Chunk, Tensor] = {
            chunk: tensor.to(dtype) for chunk, tensor in self.text.items()
        }
        return Inputs(
            self.x.to(dtype), text, self.pooled.to(dtype), self.sizes.to(dtype), self.timestep
        )


def random_inputs(seed: int = 0) -> Inputs:
    """Frames that are noise, two prompts."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    text: dict[Chunk, Tensor] = {
        "positive": noise(FRAMES, 77, CONTEXT), "negative": noise(FRAMES, 77, CONTEXT),
    }
    return Inputs(
        noise(FRAMES, 4, LATENT, LATENT), text, noise(FRAMES, POOLED),
        torch.full((FRAMES, TIME_IDS), 128.0),
    )


@dataclass(frozen=True, slots=True)
class Twins:
    """A UNet of diffusers and an LDM UNet with the same weights."""

    diffusers: UNet2DConditionModel
    """Rows: negative first."""
    ldm: UNetModel
    """Rows: positive first."""


def make_twins(family: str) -> Twins:
    """Twins of a family of SHAPES."""
    unet = diffusers_twin(SHAPES[family])
    return Twins(unet, ldm_twin(unet, SHAPES[family]))


def call_diffusers(adapter: DiffusersUNet, inputs: Inputs, *, apart: bool = False) -> Outputs:
    """All chunks, negative first; in one evaluation or, `apart`, in one after the other."""
    outputs: dict[Chunk, Tensor] = {}
    for chunks in _groups(("negative", "positive"), apart=apart):
        with adapter.calling(Rows(FRAMES, chunks)):
            found = evaluate_diffusers(adapter, inputs, chunks)
        outputs |= dict(zip(chunks, found.chunk(len(chunks)), strict=True))
    return outputs


def call_ldm(adapter: LdmUNet, inputs: Inputs, twins: Twins, *, apart: bool = False) -> Outputs:
    """All chunks, positive first; in one evaluation or, `apart`, in one after the other."""
    outputs: dict[Chunk, Tensor] = {}
    with adapter.calling(FRAMES):
        for chunks in _groups(("positive", "negative"), apart=apart):
            found = evaluate_ldm(adapter, inputs, twins, chunks)
            outputs |= dict(zip(chunks, found.chunk(len(chunks)), strict=True))
    return outputs


def _groups(chunks: tuple[Chunk, ...], *, apart: bool) -> list[tuple[Chunk, ...]]:
    return [(chunk,) for chunk in chunks] if apart else [chunks]


@torch.no_grad()
def evaluate_diffusers(
    adapter: DiffusersUNet, inputs: Inputs, chunks: tuple[Chunk, ...]
) -> Tensor:
    """One evaluation, [rows, 4, h, w]."""
    count = len(chunks)
    return adapter.unet(
        inputs.x.repeat(count, 1, 1, 1), inputs.timestep, return_dict=False,
        encoder_hidden_states=torch.cat([inputs.text[chunk] for chunk in chunks]),
        added_cond_kwargs={
            "text_embeds": inputs.pooled.repeat(count, 1),
            "time_ids": inputs.sizes.repeat(count, 1),
        },
    )[0]


def list_evaluation(
    inputs: Inputs, twins: Twins, chunks: tuple[Chunk, ...]
) -> tuple[tuple[Tensor, Tensor], dict[str, Tensor]]:
    """What an LDM UNet is given in one evaluation."""
    count = len(chunks)
    named = {"context": torch.cat([inputs.text[chunk] for chunk in chunks])}
    if hasattr(twins.ldm, "label_emb"):
        waves = twins.diffusers.add_time_proj(inputs.sizes.flatten()).unflatten(0, (FRAMES, -1))
        added = torch.cat([inputs.pooled, waves.flatten(1).to(inputs.x.dtype)], dim=1)
        named["y"] = added.repeat(count, 1)
    timesteps = torch.full((count * FRAMES,), inputs.timestep)
    return (inputs.x.repeat(count, 1, 1, 1), timesteps), named


@torch.no_grad()
def evaluate_ldm(
    adapter: LdmUNet, inputs: Inputs, twins: Twins, chunks: tuple[Chunk, ...]
) -> Tensor:
    """One evaluation as the WebUI makes it, [rows, 4, h, w]."""
    args, kwargs = list_evaluation(inputs, twins, chunks)
    return adapter.unet(*args, **kwargs)


def farthest(a: Outputs, b: Outputs) -> float:
    """Largest difference of two calls."""
    assert a.keys() == b.keys()
    return max(float((a[chunk] - b[chunk]).abs().max()) for chunk in a)


def mean_difference(a: Outputs, b: Outputs) -> float:
    """Largest mean difference of a chunk of two calls."""
    assert a.keys() == b.keys()
    return max(float((a[chunk] - b[chunk]).abs().mean()) for chunk in a)
