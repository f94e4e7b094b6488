"""Make configurations of the networks in a checkpoint of one file, which has none itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fresco.hosts.checkpoint import Architecture, TextSizes
from fresco.hosts.detection import SD1, SD2, SDXL

SCHEDULE = {
    "_class_name": "DDPMScheduler",
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "clip_sample": False, "num_train_timesteps": 1000, "prediction_type": "epsilon",
    "steps_offset": 1, "timestep_spacing": "leading", "variance_type": "fixed_small",
}
"""The noise schedule that Stable Diffusion and SDXL were trained with."""
VAE_SCALES = {SD1: 0.18215, SD2: 0.18215, SDXL: 0.13025}
"""Family -> factor with which its latents are multiplied."""
_HEAD_WIDTH = 64
"""Width of an attention head in UNets of Stable Diffusion 2.x and SDXL, and in text encoders."""


OPEN_CLIP_PAD = 0
"""The token that open_clip's text encoders were trained to be padded with."""


def make_unet_configuration(sizes: Architecture) -> dict[str, Any]:
    """Make the configuration of the UNet."""
    attended = [bool(depth) for depth in sizes.depths]
    configuration: dict[str, Any] = {
        "act_fn": "silu", "attention_head_dim": 8, "block_out_channels": list(sizes.widths),
        "cross_attention_dim": sizes.context, "in_channels": 4, "out_channels": 4,
        "layers_per_block": 2, "norm_eps": 1e-5, "norm_num_groups": 32, "sample_size": 64,
        "down_block_types": [_DOWN[on] for on in attended],
        "up_block_types": [_UP[on] for on in reversed(attended)],
    }
    if sizes.family != SD1:
        configuration |= {
            "attention_head_dim": [_count_heads(width) for width in sizes.widths],
            "use_linear_projection": True,
        }
    if sizes.family == SDXL:
        configuration |= {
            "sample_size": 128,
            "transformer_layers_per_block": [depth or 1 for depth in sizes.depths],
            "addition_embed_type": "text_time", "addition_time_embed_dim": sizes.size_width,
            "projection_class_embeddings_input_dim": sizes.added,
        }
    return configuration


_DOWN = ("DownBlock2D", "CrossAttnDownBlock2D")
_UP = ("UpBlock2D", "CrossAttnUpBlock2D")
"""A stage without attention, and one with it."""


def _count_heads(width: int) -> int:
    return max(1, width // _HEAD_WIDTH)


def make_vae_configuration(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Make the configuration of a VAE of Stable Diffusion or SDXL."""
    stages = len(sizes["block_out_channels"])
    return {
        "act_fn": "silu", "in_channels": 3, "out_channels": 3, "latent_channels": 4,
        "norm_num_groups": 32, "sample_size": 512,
        "down_block_types": ["DownEncoderBlock2D"] * stages,
        "up_block_types": ["UpDecoderBlock2D"] * stages, **sizes,
    }


def make_text_configuration(sizes: TextSizes, family: str) -> dict[str, Any]:
    """Make the configuration of CLIP's text model; heads are 64 wide, and at least four.

    Stable Diffusion 2.x uses the input of the last layer, so that layer is left out. SDXL uses the
    same, but needs the last layer for its pooled prompts.
    """
    heads = _count_heads(sizes.width)
    return {
        "hidden_act": "gelu" if sizes.is_open_clip else "quick_gelu", "hidden_size": sizes.width,
        "intermediate_size": sizes.inner, "max_position_embeddings": sizes.length,
        "num_attention_heads": heads if sizes.is_open_clip else max(4, heads),
        "num_hidden_layers": sizes.layers - (family == SD2),
        "projection_dim": sizes.pooled or sizes.width, "vocab_size": sizes.vocabulary,
        "bos_token_id": sizes.vocabulary - 2, "eos_token_id": sizes.vocabulary - 1,
        "pad_token_id": OPEN_CLIP_PAD if sizes.is_open_clip else sizes.vocabulary - 1,
    }
