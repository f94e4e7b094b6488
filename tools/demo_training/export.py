"""The trained networks as a checkpoint that the WebUI, Forge and the command line load."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL

from demo.ldm_layout import write_ldm_file
from tools.demo_training.diffusion import Denoiser
from tools.demo_training.networks import SCALE, Widths

_CONFIGURATION = """\
# {name}: Stable Diffusion 1.x at small widths, see docs/demo-model.md.
# For the WebUI, copy {name}.safetensors, this file and the folder {name} into its folder
# models/Stable-diffusion.
model:
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.00085
    linear_end: 0.0120
    num_timesteps_cond: 1
    log_every_t: 200
    timesteps: 1000
    first_stage_key: "jpg"
    cond_stage_key: "txt"
    image_size: 64
    channels: 4
    cond_stage_trainable: false
    conditioning_key: crossattn
    monitor: val/loss_simple_ema
    scale_factor: {scale}
    use_ema: False
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        image_size: 32
        in_channels: 4
        out_channels: 4
        model_channels: {channels}
        attention_resolutions: [ 4, 2, 1 ]
        num_res_blocks: {unet_blocks}
        channel_mult: {unet}
        num_heads: 8
        use_spatial_transformer: True
        transformer_depth: 1
        context_dim: {context}
        use_checkpoint: False
        legacy: False
    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: 4
        monitor: val/rec_loss
        ddconfig:
          double_z: true
          z_channels: 4
          resolution: 256
          in_channels: 3
          out_ch: 3
          ch: {vae_channels}
          ch_mult: {vae}
          num_res_blocks: {vae_blocks}
          attn_resolutions: []
          dropout: 0.0
        lossconfig:
          target: torch.nn.Identity
    cond_stage_config:
      target: ldm.modules.encoders.modules.FrozenCLIPEmbedder
      params:
        # The tokenizer's folder, as seen from the WebUI's own.
        version: models/Stable-diffusion/{name}
"""


def _read_widths(network: Any) -> Widths:
    """Sizes of a network of diffusers."""
    return Widths(tuple(network.config.block_out_channels), network.config.layers_per_block)


def export(
    denoiser: Denoiser, vae: AutoencoderKL, tokenizer: Path, folder: Path, name: str
) -> Path:
    """Write NAME.safetensors (float16), NAME.yaml and NAME/ (tokenizer) into a folder.

    Args:
        tokenizer: folder of CLIP's tokenizer, which is copied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        parts = {"unet": denoiser.unet, "vae": vae, "text_encoder": denoiser.text}
        for part, network in parts.items():
            network.save_pretrained(Path(place) / part)
        path = write_ldm_file(Path(place), folder / f"{name}.safetensors", half=True)
    unet_widths, vae_widths = _read_widths(denoiser.unet), _read_widths(vae)
    (folder / f"{name}.yaml").write_text(_CONFIGURATION.format(
        name=name, scale=SCALE, context=denoiser.text.config.hidden_size,
        channels=unet_widths.channels[0], unet=unet_widths.multiples,
        unet_blocks=unet_widths.blocks, vae_channels=vae_widths.channels[0],
        vae=vae_widths.multiples, vae_blocks=vae_widths.blocks,
    ), "utf-8")
    shutil.copytree(tokenizer, folder / name, dirs_exist_ok=True)
    about = denoiser.text.config.to_diff_dict()
    keep = {key: value for key, value in about.items() if key != "transformers_version"}
    (folder / name / "config.json").write_text(json.dumps(keep, indent=2), "utf-8")
    return path
