"""Lets Forge and Forge Neo load small checkpoints shaped like Stable Diffusion 1.5 and SDXL.

These hosts recognise a checkpoint by its UNet, with a list of known models, and build VAE and text
models from the configurations in a folder of their own. Nothing of the host is changed: the list
becomes longer, and the new entries name folders of this extension.
"""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

from backend import loader
from backend.diffusion_engine.sd15 import StableDiffusion
from backend.diffusion_engine.sdxl import StableDiffusionXL
from huggingface_guess import model_list

HOST_CONFIGS = Path(loader.__file__).parent / "huggingface"
OWN_CONFIGS = Path(__file__).resolve().parents[1] / "configs"

VAE = {"block_out_channels": [96] * 4, "layers_per_block": 0}
SDXL_TEXT = 32
"""Width of each of the small SDXL's two text models."""
SIZE_CHANNELS = 6 * 256
"""SDXL's embedding of six numbers of the image's size; the hosts have no other width."""


def describe_text(width, inner):
    """A text model of two layers."""
    return {
        "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": 2,
        "num_attention_heads": 4, "projection_dim": width,
    }


def copy_configs(name, source, changes):
    """The host's configurations of one model, with some numbers changed.

    Returns an absolute path: the host joins it with its own folder, which gives that path.
    """
    folder = OWN_CONFIGS / name
    shutil.copytree(HOST_CONFIGS / source, folder, dirs_exist_ok=True)
    for part, values in changes.items():
        file = folder / part / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **values}), "utf-8")
    return str(folder)


class TinySD15(model_list.SD15):
    """The layout of the demo's checkpoint, `demo/model/fresco-demo.yaml`."""

    huggingface_repo = copy_configs(
        "tiny-sd15", "runwayml/stable-diffusion-v1-5",
        {"vae": VAE, "text_encoder": describe_text(64, 128)},
    )
    unet_config: ClassVar[dict[str, Any]] = {
        **model_list.SD15.unet_config, "model_channels": 64, "context_dim": 64
    }


class TinySDXL(model_list.SDXL):
    """The layout of `write_sdxl` in `tests/helpers/webui/shaped_models.py`."""

    huggingface_repo = copy_configs(
        "tiny-sdxl", "stabilityai/stable-diffusion-xl-base-1.0", {"vae": VAE} | dict.fromkeys(
            ("text_encoder", "text_encoder_2"), describe_text(SDXL_TEXT, 4 * SDXL_TEXT)
        ),
    )
    unet_config: ClassVar[dict[str, Any]] = {
        **model_list.SDXL.unet_config, "model_channels": 32, "context_dim": 2 * SDXL_TEXT,
        "adm_in_channels": SDXL_TEXT + SIZE_CHANNELS, "transformer_depth": [0, 0, 1, 1, 2, 2],
    }


# The script is executed again when the page is reloaded.
if not any(known.__name__ == TinySD15.__name__ for known in model_list.models):
    model_list.models[:0] = [TinySD15, TinySDXL]
    StableDiffusion.matched_guesses.append(TinySD15)
    StableDiffusionXL.matched_guesses.append(TinySDXL)
