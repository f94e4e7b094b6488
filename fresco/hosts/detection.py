"""What a file of weights or a loaded model is, told from names and shapes of its tensors."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fresco.errors import HostError, WeightsError

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name -> shape."""

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP = "cond_stage_model.transformer.text_model."

_CONTEXT = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL",
            1280: "the SDXL refiner"}
"""Width of the text conditioning -> family."""
_INPUTS = {5: "a depth-conditioned model", 7: "an upscaling model",
           8: "an instruct-pix2pix model", 9: "an inpainting model"}
"""Channels the UNet takes -> what it is made for; Stable Diffusion's own takes 4."""
_TRANSFORMERS = (("joint_blocks", "Stable Diffusion 3"), ("double_blocks", "Flux"))
"""Part of a network that is not a UNet -> the model that has it."""
_SIGNS = (
    ("joint_blocks.", "Stable Diffusion 3"),
    ("double_blocks.", "Flux"),
    ("lora_down", "a LoRA"),
    ("lora_A", "a LoRA"),
    ("lora.down", "a LoRA"),
    ("control_model.", "a ControlNet"),
    ("controlnet_cond_embedding.", "a ControlNet"),
    ("emb_params", "a textual inversion"),
    ("string_to_param", "a textual inversion"),
    ("conditioner.embedders.", "SDXL"),
)
"""Part of a tensor's name -> what holds such tensors."""
_HEADER_LIMIT = 100 << 20
"""Longest header of a safetensors file, by its format."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A checkpoint of the kind that can be guided, with its sizes."""

    widths: tuple[int, ...]
    """Channels of the UNet's stages."""
    context: int
    """Width of the text conditioning."""
    vae_widths: tuple[int, ...]
    """Channels of the VAE's stages."""
    vae_layers: int
    """Residual blocks of a stage of the VAE's encoder; a stage of the decoder has one more."""
    vocabulary: int
    """Tokens the text encoder knows."""
    text_layers: int
    """Layers of the text encoder."""
    text_inner: int
    """Width inside its layers."""
    text_length: int
    """Tokens of a prompt, start and end included."""


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a .safetensors, .ckpt, .pt, .pth or .bin file."""
    if path.suffix == ".safetensors":
        return _read_safetensors_shapes(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path} cannot be read as weights ({reason}). It is damaged, or holds program code, "
            "which is never run; use a .safetensors file."
        ) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    return {k: tuple(v.shape) for k, v in state.items() if isinstance(v, torch.Tensor)}


def _read_safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """From the header alone; the file's size is checked against it."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if length < _HEADER_LIMIT else None
        if not isinstance(header, dict):
            raise ValueError("no header")
        tensors = {k: v for k, v in header.items() if k != "__metadata__"}
        end = 8 + length + max((v["data_offsets"][1] for v in tensors.values()), default=0)
        if path.stat().st_size != end:
            raise ValueError(f"{path.stat().st_size} bytes instead of {end}")
        return {key: tuple(value["shape"]) for key, value in tensors.items()}
    except (struct.error, ValueError, KeyError, TypeError, OSError) as error:
        raise WeightsError(
            f"{path} is not a readable .safetensors file ({error}). Fetch it again."
        ) from error


def describe(shapes: Shapes) -> str:
    """What a file is, in words; the kind that can be guided is `Stable Diffusion 1.x`."""
    for sign, kind in _SIGNS:
        if any(sign in key for key in shapes):
            return kind
    if not any(key.startswith(UNET) for key in shapes):
        return _describe_part(shapes)
    inputs = shapes.get(f"{UNET}input_blocks.0.0.weight", (0, 0))[1]
    if inputs in _INPUTS:
        return _INPUTS[inputs]
    if f"{UNET}label_emb.0.0.weight" in shapes:
        return _CONTEXT.get(_find_context(shapes), "SDXL")
    if any(key.startswith("cond_stage_model.model.") for key in shapes):
        return "Stable Diffusion 2.x"
    missing = [name for part, name in ((VAE, "VAE"), (CLIP, "text encoder"))
               if not any(key.startswith(part) for key in shapes)]
    if missing:
        return f"a UNet without its {' and '.join(missing)}"
    width = shapes[f"{CLIP}embeddings.token_embedding.weight"][1]
    if _find_context(shapes) != width or inputs != 4:
        return "a model of an unknown kind"
    return "Stable Diffusion 1.x"


def _describe_part(shapes: Shapes) -> str:
    """A file without a UNet of the original layout."""
    keys = list(shapes)
    if any("post_quant_conv" in key or key.startswith("decoder.") for key in keys):
        return "a VAE"
    if any(key.startswith("down_blocks.") for key in keys):
        return "a UNet without its VAE and text encoder"
    return "not a diffusion model that FRESCO knows"


def _find_context(shapes: Shapes) -> int:
    """Width of the text conditioning: columns of a cross-attention key projection."""
    ends = "attn2.to_k.weight"
    return next((shape[1] for key, shape in shapes.items()
                 if key.startswith(UNET) and key.endswith(ends)), 0)


def inspect_checkpoint(path: Path) -> Architecture:
    """Sizes of a Stable Diffusion 1.x checkpoint; anything else is refused by name."""
    shapes = read_shapes(path)
    kind = describe(shapes)
    if kind != "Stable Diffusion 1.x":
        hint = ""
        if kind == "Stable Diffusion 2.x":
            hint = " A diffusers folder of it works, since that says what the model predicts."
        raise HostError(
            f"{path.name} is {kind}; a single file must be a whole Stable Diffusion 1.x "
            f"checkpoint.{hint}"
        )
    layers = {key.removeprefix(f"{CLIP}encoder.layers.").partition(".")[0]
              for key in shapes if key.startswith(f"{CLIP}encoder.layers.")}
    # The decoder's stages: an encoder's may be without residual blocks.
    stages = range(_count(shapes, f"{VAE}decoder.up.{{}}.block.0.conv2.weight"))
    tokens = shapes[f"{CLIP}embeddings.token_embedding.weight"]
    return Architecture(
        widths=tuple(shapes[f"{UNET}input_blocks.{3 * stage + 1}.0.in_layers.2.weight"][0]
                     for stage in range(4)),
        context=_find_context(shapes),
        vae_widths=tuple(shapes[f"{VAE}decoder.up.{stage}.block.0.conv2.weight"][0]
                         for stage in stages),
        vae_layers=_count(shapes, f"{VAE}decoder.up.0.block.{{}}.conv2.weight") - 1,
        vocabulary=tokens[0],
        text_layers=len(layers),
        text_inner=shapes[f"{CLIP}encoder.layers.0.mlp.fc1.weight"][0],
        text_length=shapes[f"{CLIP}embeddings.position_embedding.weight"][0],
    )


def _count(shapes: Shapes, pattern: str) -> int:
    """How many of `pattern` with 0, 1, 2, ... there are."""
    number = 0
    while pattern.format(number) in shapes:
        number += 1
    return number


def find_lora_context(shapes: Shapes) -> int | None:
    """Width of the text conditioning that a LoRA was made for; None if it cannot be told."""
    down = ("lora_down.weight", "lora_A.weight", "lora.down.weight")
    for key, shape in shapes.items():
        if "attn2" in key and ("to_k" in key or "to_v" in key) and key.endswith(down):
            return shape[1]
    return None


def name_family(context: int) -> str:
    """Name of the model family with text conditioning of this width."""
    return _CONTEXT.get(context, f"a model with text conditioning of width {context}")


def find_guidable_unet(model: Any) -> nn.Module:
    """The UNet of the WebUI's loaded model; models that cannot be guided are refused by name.

    Args:
        model: what the WebUI calls `shared.sd_model`
    """
    network = getattr(getattr(model, "model", None), "diffusion_model", None)
    if not isinstance(network, nn.Module):
        raise HostError(
            "No Stable Diffusion model is loaded; choose a checkpoint of Stable Diffusion 1.x, "
            "2.x or SDXL first."
        )
    kind, guidable = _classify(model, network)
    if not guidable:
        raise HostError(
            f"{_name_checkpoint(model)} is {kind}, which FRESCO cannot guide; choose an ordinary "
            "checkpoint of Stable Diffusion 1.x, 2.x or SDXL."
        )
    return network


def _classify(model: Any, network: nn.Module) -> tuple[str, bool]:
    """What a loaded model is, and whether it is of a kind that can be guided."""
    for part, kind in _TRANSFORMERS:
        if hasattr(network, part):
            return kind, False
    if getattr(model, "is_sd3", False):
        return "Stable Diffusion 3", False
    if not hasattr(network, "input_blocks") or not hasattr(network, "output_blocks"):
        return f"a {type(network).__name__}", False
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    inputs = shapes.get("input_blocks.0.0.weight", (0, 0))[1]
    if inputs != 4:
        return _INPUTS.get(inputs, f"a model of {inputs} input channels"), False
    context = _find_context({f"{UNET}{name}": shape for name, shape in shapes.items()})
    return name_family(context), True


def _name_checkpoint(model: Any) -> str:
    """The checkpoint's name as the WebUI shows it."""
    info = getattr(model, "sd_checkpoint_info", None)
    return getattr(info, "name_for_extra", None) or "The loaded checkpoint"
