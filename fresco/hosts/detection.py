"""Recognise files of weights and loaded models by the names and shapes of their tensors."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from fresco.errors import HostError
from fresco.hosts.tensor_file import Shapes

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP = "cond_stage_model.transformer.text_model."
OPEN_CLIP = "cond_stage_model.model."
XL_CLIP = "conditioner.embedders.0.transformer.text_model."
XL_OPEN_CLIP = "conditioner.embedders.1.model."

SD1, SD2, SDXL = "Stable Diffusion 1.x", "Stable Diffusion 2.x", "SDXL"
"""Families that are guided."""
TEXT_ENCODERS = {SD1: (CLIP,), SD2: (OPEN_CLIP,), SDXL: (XL_CLIP, XL_OPEN_CLIP)}
"""Family -> where its text encoders lie in one file. Those that end in `model.` have open_clip's
names, the others those of transformers."""
_REFINER = "the SDXL refiner"
_CONTEXT = {768: SD1, 1024: SD2, 2048: SDXL, 1280: _REFINER}
"""Width of the text conditioning -> family."""
_INPUTS = {5: "a depth-conditioned model", 7: "an upscaling model",
           8: "an instruct-pix2pix model", 9: "an inpainting model",
           16: "a model with the latents of Flux", 32: "a model with the latents of Flux 2 (Mugen)"}
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
    ("edm_mean", "Playground 2.5, which has a noise schedule of its own"),
    ("edm_vpred.", "CosXL, which has a noise schedule of its own"),
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


def describe(shapes: Shapes) -> str:
    """Describe in words what a file is; a checkpoint that can be guided is named by its family."""
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
    family = find_family(shapes)
    if family not in TEXT_ENCODERS:
        return family
    encoders = TEXT_ENCODERS[family]
    absent = [part for part in encoders if not any(key.startswith(part) for key in shapes)]
    missing = [] if any(key.startswith(VAE) for key in shapes) else ["VAE"]
    missing += ["text encoders" if len(encoders) > 1 else "text encoder"] if absent else []
    if missing:
        return f"a UNet without its {' and '.join(missing)}"
    widths = [_read_size(shapes, f"{part}{name_token_table(part)}", 1) for part in encoders]
    context = _find_context(shapes)
    known = 0 not in (inputs, context, *widths)  # else a tensor is wrong, not the kind
    if known and (context != sum(widths) or inputs != 4):
        return "a model of an unknown kind"
    return family


def find_family(shapes: Shapes) -> str:
    """Family of a checkpoint with a UNet of the original layout; other parts may be missing."""
    added = f"{UNET}label_emb.0.0.weight" in shapes
    if any(key.startswith(OPEN_CLIP) for key in shapes):
        return f"{SD2} unCLIP" if added else SD2
    if not added and not any(key.startswith("conditioner.") for key in shapes):
        return SD1
    if _find_context(shapes) == 1280 or any(
        key.startswith("conditioner.embedders.0.model.") for key in shapes
    ):
        return _REFINER
    return SDXL if _has_all_layers(shapes) else "a reduced SDXL, such as SSD-1B"


def _has_all_layers(shapes: Shapes) -> bool:
    """Whether SDXL's UNet has as many transformer blocks in the decoder as in the encoder."""
    depths = [count_transformers(shapes, f"input_blocks.{3 * stage + 1}") for stage in range(3)]
    places = {"middle_block": depths[2]} | {
        f"{side}_blocks.{3 * (stage if side == 'input' else 2 - stage) + layer}": depths[stage]
        for stage in range(3)
        for side, layers in (("input", (1, 2)), ("output", (0, 1, 2))) for layer in layers
    }
    return all(count_transformers(shapes, place) == depth for place, depth in places.items())


def count_transformers(shapes: Shapes, place: str) -> int:
    """Number of transformer blocks in a block of the UNet; 0 if it has no attention."""
    start = f"{UNET}{place}.1.transformer_blocks."
    found = (key[len(start):].partition(".")[0] for key in shapes if key.startswith(start))
    return 1 + max((int(number) for number in found if number.isdigit()), default=-1)


def name_token_table(encoder: str) -> str:
    """Name of a text encoder's token table, whose columns are the width of the conditioning.

    Args:
        encoder: one of TEXT_ENCODERS
    """
    table = "token_embedding.weight"
    return table if encoder.endswith(".model.") else f"embeddings.{table}"


def _describe_added_network(shapes: Shapes) -> str:
    """Describe a LoRA or a similar network by its model; empty if it is something else."""
    if not any(key.startswith(UNET) for key in shapes):
        if kind := find_lycoris_kind(shapes):
            return f"a LyCORIS network ({kind})"
        if any(key.endswith(LORA_DOWN) for key in shapes):
            return f"a LoRA for {_find_lora_family(shapes)}"
    return ""


def find_lycoris_kind(shapes: Shapes) -> str:
    """Kind of a LyCORIS network that is not a LoRA; empty if there is none."""
    return next((kind for pattern, kind in _LYCORIS
                 if any(re.search(pattern, key) for key in shapes)), "")


def _find_lora_family(shapes: Shapes) -> str:
    """Family of the model that a LoRA was made for."""
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
    """Describe a file without a UNet of the original layout."""
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
    """Read a size of a tensor; 0 if there is none."""
    shape = shapes.get(name, ())
    return shape[axis] if axis < len(shape) else 0


def find_lora_context(shapes: Shapes) -> int | None:
    """Width of the text conditioning that a LoRA was made for; None if it is not known."""
    for key, shape in shapes.items():
        cross = "attn2" in key and ("to_k" in key or "to_v" in key)
        if cross and key.endswith(LORA_DOWN) and len(shape) > 1:
            return shape[1]
    return None


def name_family(context: int) -> str:
    """Name of the model family with text conditioning of this width."""
    return _CONTEXT.get(context, f"a model with text conditioning of width {context}")


def find_guidable_unet(model: Any) -> nn.Module:
    """Find the UNet of the WebUI's loaded model; HostError if it cannot be guided.

    Args:
        model: what the WebUI or a Forge kind calls `shared.sd_model`
    """
    objects = getattr(model, "forge_objects", None)
    around = getattr(model, "model", None) if objects is None else objects.unet.model
    network = getattr(around, "diffusion_model", None)
    if not isinstance(network, nn.Module):
        raise HostError(
            "No Stable Diffusion model is loaded; choose a checkpoint of Stable Diffusion 1.x, "
            "2.x or SDXL first."
        )
    if hasattr(network, "_orig_mod"):
        raise HostError(
            "The UNet is compiled by torch.compile, which FRESCO cannot guide; start the WebUI "
            "without --torch-compile."
        )
    kind, guidable = _classify(model, network)
    if guidable and _predicts_flow(around):
        kind, guidable = "a rectified flow model", False
    if not guidable:
        raise HostError(
            f"{_name_checkpoint(model)} is {kind}, which FRESCO cannot guide; choose an ordinary "
            "checkpoint of Stable Diffusion 1.x, 2.x or SDXL."
        )
    return network


def _predicts_flow(around: Any) -> bool:
    """Whether a model of a Forge kind predicts a flow between noise and image, as Flux does."""
    predictor = getattr(around, "predictor", None)
    if predictor is not None:  # Forge, Neo
        return getattr(predictor, "prediction_type", "") == "const"
    sampling = getattr(around, "model_sampling", None)  # reForge, forge-classic
    return any("CONST" in kind.__name__ or "RFLOW" in kind.__name__
               for kind in type(sampling).__mro__)


def _classify(model: Any, network: nn.Module) -> tuple[str, bool]:
    """Describe a loaded model, and whether it can be guided."""
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
    """Name of the checkpoint as the WebUI shows it."""
    info = getattr(model, "sd_checkpoint_info", None)
    return getattr(info, "name_for_extra", None) or "The loaded checkpoint"
