"""Random networks beside a checkpoint whose effect shows: ControlNets that copy hints, LoRA."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

NETWORK, LORA = "tiny_canny", "tiny_lora"
"""Names of the files that a real WebUI gets."""
_UNET = "model.diffusion_model."
_ENCODER = ("input_blocks.", "middle_block.", "time_embed.", "label_emb.")
_HINT_WIDTHS = (3, 16, 16, 32, 32, 96, 96, 256)
"""Channels of the convolutions that every ControlNet of the LDM layout begins with; the UNet's
width is the last. Every second one halves the sides."""


def write_control_network(checkpoint: Path, file: Path, strength: float = 0.3) -> None:
    """A ControlNet in the LDM layout: the checkpoint's own encoder with random outputs.

    Args:
        checkpoint: SD 1.x or SDXL in one file
        strength: standard deviation of what the outputs multiply features with
    """
    with safe_open(checkpoint, "pt") as file_of_model:
        unet = {
            name.removeprefix(_UNET): file_of_model.get_tensor(name).float()
            for name in file_of_model.keys()  # noqa: SIM118 - it is no dict
            if name.removeprefix(_UNET).startswith(_ENCODER)
        }
    generator = torch.Generator().manual_seed(11)

    def draw(*shape: int, deviation: float) -> Tensor:
        return torch.randn(shape, generator=generator) * deviation

    # Hosts give attention of so small a network heads of different widths; without its outputs they
    # all compute the same.
    made = {name: torch.zeros_like(tensor) if ".to_out." in name else tensor
            for name, tensor in unet.items()}
    widths = (*_HINT_WIDTHS, len(unet["input_blocks.0.0.weight"]))
    for place, (before, after) in enumerate(itertools.pairwise(widths)):
        # As large as keeps the size of the features, by the nine taps of each kernel.
        made[f"input_hint_block.{2 * place}.weight"] = draw(
            after, before, 3, 3, deviation=(2 / (9 * before)) ** 0.5
        )
        made[f"input_hint_block.{2 * place}.bias"] = torch.zeros(after)
    for place, width in enumerate(_list_widths(unet)):
        made[f"zero_convs.{place}.0.weight"] = draw(width, width, 1, 1, deviation=strength)
        made[f"zero_convs.{place}.0.bias"] = torch.zeros(width)
    last = len(unet["middle_block.0.out_layers.3.weight"])
    made["middle_block_out.0.weight"] = draw(last, last, 1, 1, deviation=strength)
    made["middle_block_out.0.bias"] = torch.zeros(last)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"control_model.{name}": tensor.contiguous() for name, tensor in made.items()}, file)


def _list_widths(unet: dict[str, Tensor]) -> list[int]:
    """Channels that each block of the encoder gives."""
    widths = []
    while True:
        block = f"input_blocks.{len(widths)}.0."
        found = next(
            (unet[block + end] for end in ("out_layers.3.weight", "op.weight", "weight")
             if block + end in unet), None,
        )
        if found is None:
            return widths
        widths.append(len(found))


def write_lora(checkpoint: Path, file: Path, rank: int = 4) -> None:
    """A random LoRA that shows, on values of self-attention at the finest level.

    Args:
        checkpoint: SD 1.x; a LoRA of SDXL has other names
    """
    with safe_open(checkpoint, "pt") as file_of_model:
        width = file_of_model.get_slice(f"{_UNET}input_blocks.0.0.weight").get_shape()[0]
    generator = torch.Generator().manual_seed(12)
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_v"
    made = {
        f"{layer}.lora_down.weight": torch.randn(rank, width, generator=generator),
        f"{layer}.lora_up.weight": torch.randn(width, rank, generator=generator),
        f"{layer}.alpha": torch.tensor(float(rank)),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(made, file)
