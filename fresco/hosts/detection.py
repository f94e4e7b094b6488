"""What a file of weights or a loaded model is, told from names and shapes of its tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from fresco.errors import HostError, WeightsError
from fresco.hosts.tensor_file import Shapes, TensorFile

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
    ("single_transformer_blocks.", "Flux"),
    ("lora_controlnet", "a Control-LoRA"),
    ("control_model.", "a ControlNet"),
    ("controlnet_cond_embedding.", "a ControlNet"),
    ("input_hint_block.", "a ControlNet"),
    ("ip_adapter.", "an IP-Adapter"),
    ("motion_modules.", "a motion module of AnimateDiff"),
    ("adapter.body.", "a T2I-Adapter"),
    ("emb_params", "a textual inversion"),
    ("string_to_param", "a textual inversion"),
    ("conditioner.embedders.", "SDXL"),
    (".quant_state.", "a quantised model (bitsandbytes)"),
    (".weight.absmax", "a quantised model (bitsandbytes)"),
)
"""Part of a tensor's name -> what holds such tensors."""
LORA_DOWN = (".lora_down.weight", ".lora_A.weight", ".lora_A.default.weight",
             ".lora.down.weight", "_lora.down.weight", ".lora_linear_layer.down.weight")
"""Ends of the names of a LoRA's first matrices, as training programs write them."""
_LYCORIS = (
    (r"\.hada_w[12]_", "LoHa"), (r"\.lokr_w[12]", "LoKr"), (r"\.oft_(blocks|diag)", "OFT"),
    (r"\.dora_scale$", "DoRA"), (r"\.lora_magnitude_vector", "DoRA"), (r"\.on_input$", "IA3"),
    (r"^lora_.*\.a[12]\.weight$", "GLoRA"), (r"^lora_.*\.(diff|diff_b)$", "full matrices"),
    (r"^lora_.*\.[wb]_norm$", "norms"),
)
"""Pattern of a tensor's name -> the kind of LyCORIS network that has it."""


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


def describe(shapes: Shapes) -> str:
    """What a file is, in words; the kind that can be guided is `Stable Diffusion 1.x`."""
    if network := _describe_added_network(shapes):
        return network
    for sign, kind in _SIGNS:
        if any(sign in key for key in shapes):
            return kind
    if not any(key.startswith(UNET) for key in shapes):
        return _describe_part(shapes)
    inputs = _read_size(shapes, f"{UNET}input_blocks.0.0.weight", 1)
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
    width = _read_size(shapes, f"{CLIP}embeddings.token_embedding.weight", 1)
    known = 0 not in (inputs, width, _find_context(shapes))  # else a tensor is wrong, not the kind
    if known and (_find_context(shapes) != width or inputs != 4):
        return "a model of an unknown kind"
    return "Stable Diffusion 1.x"


def _describe_added_network(shapes: Shapes) -> str:
    """A LoRA or a relative of it, by the model it was made for; empty: something else."""
    if not any(key.startswith(UNET) for key in shapes):
        if kind := find_lycoris_kind(shapes):
            return f"a LyCORIS network ({kind})"
        if any(key.endswith(LORA_DOWN) for key in shapes):
            return f"a LoRA for {_find_lora_family(shapes)}"
    return ""


def find_lycoris_kind(shapes: Shapes) -> str:
    """The kind of LyCORIS network that changes weights otherwise than a LoRA; empty: none."""
    return next((kind for pattern, kind in _LYCORIS
                 if any(re.search(pattern, key) for key in shapes)), "")


def _find_lora_family(shapes: Shapes) -> str:
    """The model that a LoRA was made for."""
    for signs, family in (
        (("double_blocks", "single_blocks", "single_transformer_blocks"), "Flux"),
        (("joint_blocks", "add_k_proj"), "Stable Diffusion 3"),
        (("lora_te2_", "text_encoder_2."), "SDXL"),
    ):
        if any(sign in key for key in shapes for sign in signs):
            return family
    context = find_lora_context(shapes)
    return "a model that its names do not tell" if context is None else name_family(context)


def _describe_part(shapes: Shapes) -> str:
    """A file without a UNet of the original layout."""
    keys = list(shapes)
    if any(key.startswith("model_ema.diffusion_model") for key in keys):
        return "a checkpoint with the EMA weights of a UNet only, which are for going on training"
    if any("post_quant_conv" in key or key.startswith("decoder.") for key in keys):
        return "a VAE"
    if any(key.startswith("down_blocks.") for key in keys):
        return "a UNet without its VAE and text encoder"
    if any(key.startswith(("text_model.", CLIP)) for key in keys):
        return "a text encoder"
    return "not a diffusion model that FRESCO knows"


def _find_context(shapes: Shapes) -> int:
    """Width of the text conditioning: columns of a cross-attention key projection."""
    ends = "attn2.to_k.weight"
    return next((_read_size(shapes, key, 1) for key in shapes
                 if key.startswith(UNET) and key.endswith(ends)), 0)


def _read_size(shapes: Shapes, name: str, axis: int) -> int:
    """A size of a tensor; 0 if there is none."""
    shape = shapes.get(name, ())
    return shape[axis] if axis < len(shape) else 0


def inspect_checkpoint(path: Path) -> Architecture:
    """Sizes of a Stable Diffusion 1.x checkpoint; anything else is refused by name."""
    return measure_checkpoint(TensorFile(path))


def measure_checkpoint(file: TensorFile, *, with_vae: bool = True) -> Architecture:
    """Sizes of a Stable Diffusion 1.x checkpoint; anything else is refused by name.

    Args:
        with_vae: whether its VAE is needed; else the sizes of the VAE may be empty.
    """
    shapes = file.shapes
    kind = describe(shapes)
    if not with_vae and kind == "a UNet without its VAE":
        kind = "Stable Diffusion 1.x"
    if kind != "Stable Diffusion 1.x":
        hint = {
            "Stable Diffusion 2.x": " A diffusers folder of it works, since that says what the "
                                    "model predicts.",
            "a UNet without its VAE": " Give its VAE as sampling.vae.",
        }.get(kind, "")
        raise HostError(
            f"{file.path.name} is {kind}; a single file must be a whole Stable Diffusion 1.x "
            f"checkpoint.{hint}"
        )

    def read(name: str, axis: int = 0) -> int:
        return require_size(file, name, axis)

    layers = {key.removeprefix(f"{CLIP}encoder.layers.").partition(".")[0]
              for key in shapes if key.startswith(f"{CLIP}encoder.layers.")}
    vae_widths, vae_layers = measure_vae(file, VAE) if with_vae or _has_vae(shapes) else ((), 0)
    return Architecture(
        widths=tuple(read(f"{UNET}input_blocks.{3 * stage + 1}.0.in_layers.2.weight")
                     for stage in range(4)),
        context=read(f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", 1),
        vae_widths=vae_widths,
        vae_layers=vae_layers,
        vocabulary=read(f"{CLIP}embeddings.token_embedding.weight"),
        text_layers=len(layers),
        text_inner=read(f"{CLIP}encoder.layers.0.mlp.fc1.weight"),
        text_length=read(f"{CLIP}embeddings.position_embedding.weight"),
    )


def _has_vae(shapes: Shapes) -> bool:
    return any(key.startswith(VAE) for key in shapes)


def measure_vae(file: TensorFile, prefix: str) -> tuple[tuple[int, ...], int]:
    """Channels of a VAE's stages, and residual blocks of a stage of its encoder."""
    shapes = file.shapes
    # The decoder's stages: an encoder's may be without residual blocks.
    stages = _count(shapes, f"{prefix}decoder.up.{{}}.block.0.conv2.weight")
    if not stages:
        raise make_missing_error(file, f"{prefix}decoder.up.0.block.0.conv2.weight")
    widths = tuple(require_size(file, f"{prefix}decoder.up.{stage}.block.0.conv2.weight", 0)
                   for stage in range(stages))
    return widths, _count(shapes, f"{prefix}decoder.up.0.block.{{}}.conv2.weight") - 1


def require_size(file: TensorFile, name: str, axis: int) -> int:
    """A size of a tensor that a file must have."""
    if name not in file.shapes:
        raise make_missing_error(file, name)
    if axis >= len(file.shapes[name]):
        raise WeightsError(
            f"{file.path.name} has {file.name_in_file(name)} of shape {list(file.shapes[name])}, "
            f"which needs {axis + 1} or more dimensions; the file is damaged or of another kind."
        )
    return file.shapes[name][axis]


def make_missing_error(file: TensorFile, name: str, more: int = 0) -> WeightsError:
    """That a file is without a tensor that it must have."""
    others = f" and {more} more of its tensors" if more else ""
    return WeightsError(
        f"{file.path.name} lacks {name}{others}; it is incomplete. Fetch it again, or use another "
        "file."
    )


def _count(shapes: Shapes, pattern: str) -> int:
    """How many of `pattern` with 0, 1, 2, ... there are."""
    number = 0
    while pattern.format(number) in shapes:
        number += 1
    return number


def find_lora_context(shapes: Shapes) -> int | None:
    """Width of the text conditioning that a LoRA was made for; None if it cannot be told."""
    for key, shape in shapes.items():
        cross = "attn2" in key and ("to_k" in key or "to_v" in key)
        if cross and key.endswith(LORA_DOWN) and len(shape) > 1:
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
