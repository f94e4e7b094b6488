"""Write a diffusers folder of SD 1.x as one file with the original (LDM) keys."""

from __future__ import annotations

import re
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from fresco.hosts.diffusers.layout import rename_control_key, rename_unet_key, rename_vae_key


def _shape_vae_tensor(key: str, tensor: Tensor) -> Tensor:
    """The original VAE's attention is made of 1x1 convolutions."""
    linear = re.search(r"attn_1\.(q|k|v|proj_out)\.weight$", key)
    return tensor[:, :, None, None] if linear else tensor


def _load_weights(folder: Path) -> dict[str, Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


def convert_control(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A ControlNet's weights in the original layout."""
    return {f"control_model.{rename_control_key(key)}": tensor.contiguous()
            for key, tensor in state.items()}


def write_ldm_file(folder: Path, path: Path, *, half: bool = False) -> Path:
    """One .safetensors of the original layout from a diffusers folder; `half`: in float16."""
    state: dict[str, Tensor] = {}
    for key, tensor in _load_weights(folder / "unet").items():
        state[f"model.diffusion_model.{rename_unet_key(key)}"] = tensor
    vae = _load_weights(folder / "vae")
    stages = 1 + max(int(key.split(".")[2]) for key in vae if key.startswith("decoder.up_blocks"))
    for key, tensor in vae.items():
        name = rename_vae_key(key, stages)
        state[f"first_stage_model.{name}"] = _shape_vae_tensor(name, tensor)
    for key, tensor in _load_weights(folder / "text_encoder").items():
        name = key if key.startswith("text_model.") else f"text_model.{key}"
        state[f"cond_stage_model.transformer.{name}"] = tensor
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {key: tensor.half() if half else tensor for key, tensor in state.items()}
    save_file({key: tensor.contiguous() for key, tensor in kept.items()}, path)
    return path
