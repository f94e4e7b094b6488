"""Makes a checkpoint of random weights that a WebUI loads and samples within seconds on a CPU.

The networks are those of Stable Diffusion 1.5 at a tenth of the width, built by the WebUI's own
classes, so that every name is right. Run it with the WebUI's own Python:

    python tests/tools/make_tiny_checkpoint.py WEBUI_DIR FOLDER

Beside the checkpoint lie its yaml and the folder of its tokenizer and text model.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Config = dict[str, Any]
TEXT_WIDTH = 64
"""Of the small text model."""
CHANNELS = 32
"""Of the UNet's first level; group norms need a multiple of 32."""
_REPOSITORY = "stable-diffusion-stability-ai"


def part(target: str, **params: Any) -> Config:
    """An entry that names a class."""
    return {"target": target, "params": params}


def autoencoder(target: str) -> Config:
    """Eight pixels a side of a latent, as all of them have."""
    shape = {
        "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3,
        "ch": CHANNELS, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 1, "attn_resolutions": [],
        "dropout": 0.0,
    }
    return part(target, embed_dim=4, monitor="val/rec_loss", ddconfig=shape,
                lossconfig={"target": "torch.nn.Identity"})


UNET = {
    "in_channels": 4, "out_channels": 4, "model_channels": CHANNELS, "num_res_blocks": 2,
    "use_spatial_transformer": True, "use_checkpoint": False, "legacy": False,
}


def sd15(text_folder: str) -> Config:
    """Stable Diffusion 1.5."""
    unet = part(
        "ldm.modules.diffusionmodules.openaimodel.UNetModel", **UNET, image_size=32,
        attention_resolutions=[4, 2, 1], channel_mult=[1, 2, 4, 4], num_heads=8,
        transformer_depth=1, context_dim=TEXT_WIDTH,
    )
    return part(
        "ldm.models.diffusion.ddpm.LatentDiffusion", linear_start=0.00085, linear_end=0.012,
        timesteps=1000, num_timesteps_cond=1, first_stage_key="jpg", cond_stage_key="txt",
        image_size=64, channels=4, cond_stage_trainable=False, conditioning_key="crossattn",
        scale_factor=0.18215, use_ema=False, unet_config=unet,
        first_stage_config=autoencoder("ldm.models.autoencoder.AutoencoderKL"),
        cond_stage_config=part(
            "ldm.modules.encoders.modules.FrozenCLIPEmbedder", version=text_folder
        ),
    )


def write_tokenizer(folder: Path) -> int:
    """CLIP's words, which open_clip brings along, as transformers reads them; their number."""
    known = importlib.import_module("open_clip.tokenizer")._tokenizer
    begin, end = "<|startoftext|>", "<|endoftext|>"
    names = {"<start_of_text>": begin, "<end_of_text>": end}
    words = {names.get(word, word): number for word, number in known.encoder.items()}
    merges = ["#version: 0.2", *(" ".join(pair) for pair in known.bpe_ranks)]
    special = dict.fromkeys(("eos_token", "unk_token", "pad_token"), end) | {"bos_token": begin}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(words), "utf-8")
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", "utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special), "utf-8")
    further = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special | further), "utf-8")
    return len(words)


def write_text_model(folder: Path, words: int) -> None:
    """A text model of two layers, and its tokenizer's last words as ends."""
    transformers = importlib.import_module("transformers")
    shape = transformers.CLIPTextConfig(
        vocab_size=words, hidden_size=TEXT_WIDTH, intermediate_size=2 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH, num_hidden_layers=2, num_attention_heads=4,
        bos_token_id=words - 2, eos_token_id=words - 1, pad_token_id=words - 1,
    )
    transformers.CLIPTextModel(shape).save_pretrained(folder)


def importable(webui: Path) -> None:
    """Make the classes of a WebUI's repository importable, without what they need to train."""
    sys.path.insert(0, str(webui / "repositories" / _REPOSITORY))
    absent = SimpleNamespace(LPIPS=None)
    sys.modules["taming.modules.losses.lpips"] = absent  # pyright: ignore[reportArgumentType]
    sys.modules["xformers"] = None  # pyright: ignore[reportArgumentType]


def enliven(model: Any) -> None:
    """Let every branch do something: training begins with many at zero, and norms without effect.

    The WebUI divides by the mean of a text's encoding, which plain layer norms make zero.
    """
    torch = importlib.import_module("torch")
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.add_(0.1 * torch.randn_like(module.weight))
                module.bias.add_(0.05 + 0.1 * torch.randn_like(module.bias))
        for parameter in model.parameters():
            if parameter.ndim > 1 and not parameter.any():
                inputs = parameter[0].numel()
                parameter.copy_(torch.randn_like(parameter) * (0.5 / inputs**0.5))


def settle(autoencoder: Any) -> None:
    """Latents hardly drawn by chance, as those of a trained model."""
    torch = importlib.import_module("torch")
    last = autoencoder.quant_conv
    half = len(last.bias) // 2  # the other half of the moments: logarithms of variances
    with torch.no_grad():
        last.weight[half:] = 0
        last.bias[half:] = -20


def make(webui: Path, folder: Path) -> Path:
    """The checkpoint's file; its yaml and `tiny-text` lie beside it."""
    importable(webui)
    torch = importlib.import_module("torch")
    torch.manual_seed(0)
    text_folder = folder.resolve() / "tiny-text"
    write_text_model(text_folder, write_tokenizer(text_folder))
    config = sd15(str(text_folder))
    path = folder / "tiny-sd15.safetensors"
    path.with_suffix(".yaml").write_text(json.dumps({"model": config}, indent=1), "utf-8")
    model = importlib.import_module("ldm.util").instantiate_from_config(config)
    enliven(model)
    settle(model.first_stage_model)
    weights = {
        name: value.half() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    weights = {name: value.contiguous().clone() for name, value in weights.items()}
    importlib.import_module("safetensors.torch").save_file(weights, path)
    return path


def main() -> None:
    """Make the checkpoint that the command line asks for."""
    parser = argparse.ArgumentParser(description="Makes a tiny checkpoint for tests.")
    parser.add_argument("webui", type=Path, help="folder of the WebUI")
    parser.add_argument("folder", type=Path, help="where the checkpoint goes")
    given = parser.parse_args()
    path = make(given.webui, given.folder)
    sys.stdout.write(f"{path}: {path.stat().st_size / 1e6:.0f} MB\n")


if __name__ == "__main__":
    main()
