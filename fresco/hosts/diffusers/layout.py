"""Convert names of tensors from diffusers' layout to the original one of Stable Diffusion and SDXL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}
_PLACE = re.compile(
    r"(down_blocks|up_blocks|mid_block)\.?(\d*)\.(resnets|attentions|downsamplers|upsamplers)"
    r"\.(\d+)\.(.+)"
)


_TEXT_LAYERS = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_TEXT_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where in a file a tensor of a network is."""

    name: str
    """Name of the file's tensor."""
    third: int | None = None
    """Which third of a stack of queries, keys and values it is; None: it is not stacked."""
    transposed: bool = False
    """Whether rows and columns are exchanged in the file."""

    def shape_in_file(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the file's tensor must have for one of this shape in the network."""
        if self.third is not None:
            return (3 * shape[0], *shape[1:])
        return shape[::-1] if self.transposed else shape

    def take(self, tensor: Tensor) -> Tensor:
        """Convert the file's tensor to that of the network."""
        if self.third is not None:
            return tensor.chunk(3)[self.third]
        return tensor.t() if self.transposed else tensor


def find_open_clip_source(key: str, prefix: str) -> Source:
    """Find where open_clip stores a tensor of the text model of transformers.

    Args:
        prefix: of open_clip's names in the file
    """
    key = key.removeprefix("text_model.")
    if key == "text_projection.weight":
        return Source(f"{prefix}text_projection", transposed=True)
    if key in _TEXT_ENDS:
        return Source(prefix + _TEXT_ENDS[key])
    number, _, rest = key.removeprefix("encoder.layers.").partition(".")
    layer, _, end = rest.rpartition(".")
    start = f"{prefix}transformer.resblocks.{number}."
    if layer in _TEXT_LAYERS:
        return Source(f"{start}{_TEXT_LAYERS[layer]}.{end}")
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    return Source(f"{start}attn.in_proj_{end}", third=names.index(layer))


def _find_unet_place(side: str, stage: int, kind: str, index: int, first: int) -> str:
    """Find the block of the original UNet; a stage has three layers in encoder and decoder.

    Args:
        first: place of the upsampling in the last block of the coarsest decoder stage
    """
    if side == "mid_block":
        return f"middle_block.{1 if kind == 'attentions' else 2 * index}"
    if side == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{3 * stage + 3}.0.op"
        return f"input_blocks.{3 * stage + index + 1}.{int(kind == 'attentions')}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * stage + 2}.{2 if stage else first}.conv"
    return f"output_blocks.{3 * stage + index}.{int(kind == 'attentions')}"


def rename_unet_keys(keys: Iterable[str]) -> dict[str, str]:
    """Map all keys of diffusers' UNet to their names in the original layout."""
    keys = list(keys)
    attends = any(key.startswith("up_blocks.0.attentions.") for key in keys)
    return {key: rename_unet_key(key, coarse_attention=attends) for key in keys}


def rename_unet_key(key: str, *, coarse_attention: bool = False) -> str:
    """Convert a key of diffusers' UNet to the original layout.

    Args:
        coarse_attention: whether the coarsest decoder stage has attention, as that of SDXL
    """
    stem, end = key.rsplit(".", 1)
    if stem in _UNET_ENDS:
        return f"{_UNET_ENDS[stem]}.{end}"
    match = _PLACE.match(key)
    assert match, key
    side, stage, kind, index, rest = match.groups()
    place = _find_unet_place(side, int(stage or 0), kind, int(index), 1 + coarse_attention)
    if kind == "resnets":
        layer, end = rest.rsplit(".", 1)
        rest = f"{_RESNET[layer]}.{end}"
    elif kind != "attentions":
        rest = rest.removeprefix("conv.")
    return f"{place}.{rest}"


def _rename_vae_attention(key: str) -> str:
    names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    for theirs, ours in names.items():
        key = key.replace(f".{theirs}.", f".{ours}.")
    return key


def rename_vae_key(key: str, stages: int) -> str:
    """Convert a key of diffusers' VAE to the original layout."""
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = _rename_vae_attention(key.replace("mid_block.attentions.0", "mid.attn_1"))
    key = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)

    def mirrored(match: re.Match[str]) -> str:
        return f"up.{stages - 1 - int(match[1])}."

    key = re.sub(r"up_blocks\.(\d)\.", mirrored, key)
    return key.replace(".resnets.", ".block.").replace("upsamplers.0", "upsample")


def rename_control_key(key: str) -> str:
    """Convert a key of diffusers' ControlNet to the original layout."""
    stem, end = key.rsplit(".", 1)
    parts = stem.split(".")
    if parts[0] == "controlnet_cond_embedding":
        # The first convolution, pairs of them, and the last: every second layer is an activation.
        place = {"conv_in": 0, "conv_out": 14}.get(parts[1])
        place = 2 * int(parts[2]) + 2 if place is None else place
        return f"input_hint_block.{place}.{end}"
    if parts[0] == "controlnet_down_blocks":
        return f"zero_convs.{parts[1]}.0.{end}"
    if parts[0] == "controlnet_mid_block":
        return f"middle_block_out.0.{end}"
    return rename_unet_key(key)
