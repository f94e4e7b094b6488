"""Checkpoints of full size are measured as what they were published as."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from fresco.hosts.checkpoint import Architecture, measure_checkpoint
from fresco.hosts.detection import OPEN_CLIP, UNET, VAE, XL_CLIP, XL_OPEN_CLIP
from fresco.hosts.diffusers.configurations import (
    make_text_configuration,
    make_unet_configuration,
)
from fresco.hosts.diffusers.layout import rename_unet_keys
from fresco.hosts.tensor_file import TensorFile
from tests.helpers.tiny_xl import name_open_clip

DOWN, PLAIN_DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"
XL: dict[str, Any] = {
    "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20], "transformer_layers_per_block": [1, 2, 10],
    "down_block_types": [PLAIN_DOWN, DOWN, DOWN], "up_block_types": [UP, UP, PLAIN_UP],
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816, "use_linear_projection": True,
}
SD2: dict[str, Any] = {
    "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True,
    "down_block_types": [DOWN, DOWN, DOWN, PLAIN_DOWN], "up_block_types": [PLAIN_UP, UP, UP, UP],
}
LARGE = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12,
         "intermediate_size": 3072, "hidden_act": "quick_gelu"}
HUGE = {"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24,
        "intermediate_size": 4096, "hidden_act": "gelu"}
BIG_G = {"hidden_size": 1280, "num_attention_heads": 20, "num_hidden_layers": 32,
         "intermediate_size": 5120, "projection_dim": 1280, "hidden_act": "gelu"}
"""Configurations as they were published with the models."""
VAE_SHAPES = {f"{VAE}decoder.up.{stage}.block.{block}.conv2.weight": (width, width, 3, 3)
              for stage, width in enumerate((128, 256, 512, 512)) for block in range(3)}


def shapes_of(kind: Any, config: Any) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        network = kind.from_config(config) if isinstance(config, dict) else kind(config)
    return dict(network.state_dict())


def text_shapes(kind: Any, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    state = shapes_of(kind, CLIPTextConfig(**config))
    return {key if key.startswith("text_p") else f"text_model.{key.removeprefix('text_model.')}":
            value for key, value in state.items()}


def measure(path: Path, unet: dict[str, Any], texts: dict[str, torch.Tensor]) -> Architecture:
    """What a file with these tensors is found to be; their values are a hole in the file."""
    state = shapes_of(UNet2DConditionModel, unet)
    names = rename_unet_keys(state)
    shapes = {f"{UNET}{names[key]}": tuple(value.shape) for key, value in state.items()}
    shapes |= {key: tuple(value.shape) for key, value in texts.items()} | VAE_SHAPES
    header: dict[str, Any] = {}
    end = 0
    for key, shape in shapes.items():
        start, end = end, end + 2 * torch.Size(shape).numel()
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + end)
    return measure_checkpoint(TensorFile(path))


def is_part(small: dict[str, Any], whole: dict[str, Any]) -> bool:
    return {key: whole.get(key) for key in small} == small


def test_sdxl(tmp_path: Path) -> None:
    first = {f"{XL_CLIP}{key.removeprefix('text_model.')}": value
             for key, value in text_shapes(CLIPTextModel, LARGE).items()}
    second = {f"{XL_OPEN_CLIP}{key}": value for key, value in name_open_clip(
        text_shapes(CLIPTextModelWithProjection, BIG_G)).items()}
    sizes = measure(tmp_path / "xl.safetensors", XL, first | second)
    assert (sizes.family, sizes.vae_widths, sizes.vae_layers) == ("SDXL", (128, 256, 512, 512), 2)
    assert is_part(XL, make_unet_configuration(sizes))
    for found, config in zip(sizes.texts, (LARGE, BIG_G), strict=True):
        assert is_part(config, make_text_configuration(found, sizes.family))


def test_stable_diffusion_2(tmp_path: Path) -> None:
    """Its folders say 23 layers: the last one is not used."""
    text = {f"{OPEN_CLIP}{key}": value
            for key, value in name_open_clip(text_shapes(CLIPTextModel, HUGE)).items()}
    sizes = measure(tmp_path / "sd2.safetensors", SD2, text)
    assert sizes.family == "Stable Diffusion 2.x"
    assert is_part(SD2, make_unet_configuration(sizes))
    found = make_text_configuration(sizes.texts[0], sizes.family)
    assert is_part(HUGE | {"num_hidden_layers": 23}, found)


def test_ssd_1b_is_not_sdxl(tmp_path: Path) -> None:
    reduced = XL | {
        "transformer_layers_per_block": [[1, 1], [2, 2], [4, 4]],
        "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], [1, 1, 1]],
        "mid_block_type": None,
    }
    with pytest.raises(Exception, match="is a reduced SDXL, such as SSD-1B"):
        measure(tmp_path / "ssd.safetensors", reduced, {f"{XL_CLIP}x": torch.zeros(1)})
