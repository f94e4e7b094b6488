"""Random checkpoints in the shapes that real WebUIs load, written without any WebUI.

Run as `python -m tests.helpers.webui.shaped_models NAME FOLDER`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from demo.ldm_layout import write_ldm_file
from tests.helpers.ldm_unet import CONTEXT, Shape, UNetModel
from tests.helpers.webui.environment import ROOT

DEMO = ROOT / "demo" / "model" / "fresco-demo"
WORDS, PLACES = 49408, 77
"""Of CLIP's text models."""
SIZE_CHANNELS = 256
"""SDXL embeds each of six numbers of the image's size in so many channels; Forge kinds know no
other number."""
TEXT = CONTEXT // 2
"""Width of each of SDXL's two text models."""
OPEN_CLIP = "fresco-tiny"
"""The second one's name, which a test extension makes known to open_clip."""
SDXL = Shape((1, 2, 2), (0, 1, 2), linear=True, added=TEXT + 6 * SIZE_CHANNELS)
SLIM = (320, 320, 320, 320)
"""Channels of each level: Forge kinds know SD 1.5 by the first."""
ENDS = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}


def draw_weights(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Weights that let every branch do something; norms differ from one and zero.

    Training begins with many branches at zero. The WebUI divides by the mean of a text's encoding,
    which plain layer norms make zero.
    """
    with torch.no_grad():
        for name, value in module.named_parameters():
            if value.ndim > 1:
                value.normal_(std=0.7 / value[0].numel() ** 0.5, generator=generator)
            else:
                value.normal_(std=0.05, generator=generator)
                value.add_(0.03 if name.endswith("bias") else 1.0)
    return module.eval()


def write_slim(folder: Path) -> Path:
    """SD 1.5 with VAE and text model of full size; the levels of its UNet are equally wide."""
    generator = torch.Generator().manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=SLIM, attention_head_dim=8, cross_attention_dim=768
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )
    text = CLIPTextModel(_text_config(768, 12, 12))
    parts = {"unet": unet, "vae": vae, "text_encoder": text}
    with tempfile.TemporaryDirectory() as made:
        for name, part in parts.items():
            draw_weights(part, generator)
            if name == "vae":
                settle(part)
            part.save_pretrained(Path(made) / name)
        path = write_ldm_file(Path(made), folder / "tiny-slim.safetensors", half=True)
    _write_text_folder(folder / "slim-text", text.config)
    told = (DEMO.with_suffix(".yaml")).read_text("utf-8")
    for old, new in (
        ("model_channels: 64", "model_channels: 320"), ("[1, 2, 2, 2]", "[1, 1, 1, 1]"),
        ("context_dim: 64", "context_dim: 768"), ("ch: 96", "ch: 128"),
        ("ch_mult: [1, 1, 1, 1]", "ch_mult: [1, 2, 4, 4]"),
        ("num_res_blocks: 0", "num_res_blocks: 2"),
        ("models/Stable-diffusion/fresco-demo", str((folder / "slim-text").resolve())),
    ):
        assert old in told, old
        told = told.replace(old, new, 1)
    path.with_suffix(".yaml").write_text(told, "utf-8")
    return path


def settle(vae: nn.Module) -> None:
    """Latents hardly drawn by chance, as those of a trained model."""
    last: Any = vae.get_submodule("quant_conv")
    half = len(last.bias) // 2  # the other half of the moments: logarithms of variances
    with torch.no_grad():
        last.weight[half:] = 0
        last.bias[half:] = -20


def write_sdxl(folder: Path) -> Path:
    """SDXL at small widths, with the VAE of the demo's checkpoint."""
    generator = torch.Generator().manual_seed(0)
    small = CLIPTextModel(_text_config(TEXT, 2, 4))
    state = {
        name: value for name, value in load_file(DEMO.with_suffix(".safetensors")).items()
        if name.startswith("first_stage_model.")
    }
    for prefix, part in (
        ("model.diffusion_model.", UNetModel(SDXL)),
        ("conditioner.embedders.0.transformer.", small),
        ("conditioner.embedders.1.model.", OpenClipText(TEXT, 2)),
    ):
        drawn = draw_weights(part, generator).state_dict()
        inner = "text_model." if part is small and "text_model." not in next(iter(drawn)) else ""
        state |= {prefix + inner + name: value for name, value in drawn.items()}
    path = folder / "tiny-sdxl.safetensors"
    save_file({name: value.half().contiguous() for name, value in state.items()}, path)
    _write_text_folder(folder / "sdxl-text", small.config)
    config = {"model": _describe_sdxl(str((folder / "sdxl-text").resolve()))}
    path.with_suffix(".yaml").write_text(json.dumps(config, indent=1), "utf-8")
    return path


class OpenClipText(nn.Module):
    """The names of open_clip's text model; it is never called."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty(PLACES, width))
        self.text_projection = nn.Parameter(torch.empty(width, width))
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.token_embedding = nn.Embedding(WORDS, width)
        self.ln_final = nn.LayerNorm(width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(_OpenClipBlock(width) for _ in range(layers))


class _OpenClipBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 1)
        self.mlp = nn.Module()
        self.mlp.c_fc, self.mlp.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)


def _text_config(width: int, layers: int, heads: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=WORDS, hidden_size=width, intermediate_size=4 * width, projection_dim=width,
        num_hidden_layers=layers, num_attention_heads=heads, max_position_embeddings=PLACES, **ENDS,
    )


def _write_text_folder(folder: Path, config: CLIPTextConfig) -> None:
    """CLIP's tokenizer, and the text model's shape, where A1111 looks for both."""
    shutil.copytree(DEMO, folder)
    told = json.loads((DEMO / "config.json").read_text("utf-8"))
    kept = {name: value for name, value in config.to_dict().items() if name in told}
    (folder / "config.json").write_text(json.dumps(told | kept), "utf-8")


def _describe_part(target: str, **params: Any) -> dict[str, Any]:
    """An entry that names a class of A1111's repositories."""
    return {"target": target, "params": params}


def _describe_sdxl(text_folder: str) -> dict[str, Any]:
    """The checkpoint for A1111."""
    own, encoders = "sgm.modules.diffusionmodules", "sgm.modules.encoders.modules"
    unet = _describe_part(
        f"{own}.openaimodel.UNetModel", in_channels=4, out_channels=4, num_res_blocks=2,
        model_channels=SDXL.widths[0], channel_mult=list(SDXL.multiples),
        attention_resolutions=[2, 4], transformer_depth=[1, *SDXL.depths[1:]],
        use_spatial_transformer=True, use_linear_in_transformer=True, use_checkpoint=False,
        legacy=False, num_head_channels=64, context_dim=2 * TEXT, num_classes="sequential",
        adm_in_channels=SDXL.added, spatial_transformer_attn_type="softmax",
    )
    texts = [
        _describe_part(f"{encoders}.FrozenCLIPEmbedder", version=text_folder, layer="hidden",
                       layer_idx=1),
        _describe_part(f"{encoders}.FrozenOpenCLIPEmbedder2", arch=OPEN_CLIP, version="",
                       freeze=True, layer="penultimate", always_return_pooled=True, legacy=False),
    ]
    sizes = ("original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple")
    embedders = [text | {"input_key": "txt", "is_trainable": False} for text in texts] + [
        _describe_part(f"{encoders}.ConcatTimestepEmbedderND", outdim=SIZE_CHANNELS)
        | {"input_key": size, "is_trainable": False} for size in sizes
    ]
    denoiser = _describe_part(
        f"{own}.denoiser.DiscreteDenoiser", num_idx=1000,
        weighting_config={"target": f"{own}.denoiser_weighting.EpsWeighting"},
        scaling_config={"target": f"{own}.denoiser_scaling.EpsScaling"},
        discretization_config={"target": f"{own}.discretizer.LegacyDDPMDiscretization"},
    )
    vae = _describe_part(
        "sgm.models.autoencoder.AutoencoderKLInferenceWrapper", embed_dim=4,
        monitor="val/rec_loss", lossconfig={"target": "torch.nn.Identity"}, ddconfig={
            "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3,
            "ch": 96, "ch_mult": [1] * 4, "num_res_blocks": 0, "attn_resolutions": [],
            "dropout": 0.0, "attn_type": "vanilla",
        },
    )
    return _describe_part(
        "sgm.models.diffusion.DiffusionEngine", scale_factor=0.13025,
        disable_first_stage_autocast=True, denoiser_config=denoiser, network_config=unet,
        conditioner_config=_describe_part("sgm.modules.GeneralConditioner", emb_models=embedders),
        first_stage_config=vae,
    )


WRITERS: dict[str, Callable[[Path], Path]] = {"slim": write_slim, "sdxl": write_sdxl}


def main() -> None:
    """Write the checkpoint that the command line asks for."""
    parser = argparse.ArgumentParser(description="Writes a random checkpoint for tests.")
    parser.add_argument("name", choices=WRITERS)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    WRITERS[given.name](given.folder)


if __name__ == "__main__":
    main()
