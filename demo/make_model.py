"""Write a small Stable Diffusion 1.5 model that was never trained.

Run as `python -m demo.make_model FOLDER [--checkpoint FILE] [--seed N]`. Its topology, file
names and keys are those of Stable Diffusion 1.5, its widths a tenth. It knows nothing about the
world: the weights are random but for a few set by hand (`demo/designed.py`), which let the clip
shine through as blocks of 8x8 pixels. It shows and tests the program; its images are of no use.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from demo.designed import SCALE, design_unet, design_vae
from demo.ldm_layout import write_ldm_file

_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_WORDS = (
    "a an the of in on with and photo picture painting drawing style oil watercolor "
    "watercolour sketch cartoon anime portrait landscape man woman boy girl dog cat car boxer "
    "music player street city forest night day light dark red green blue white black "
    "beautiful detailed high quality best masterpiece low bad worst blurry ugly closed open "
    "eyes face hair wearing walking running playing standing comic book pixel art digital "
    "render pencil charcoal van gogh "
)
"""Words of one token each, about; all others are spelled letter by letter."""


def _byte_letters() -> list[str]:
    """The 256 printable stand-ins for bytes of CLIP's vocabulary, in its order."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in kept]
    return [chr(code) for code in kept] + [chr(256 + index) for index in range(len(rest))]


def _merges() -> list[tuple[str, str]]:
    """Merges that build each known word from its letters, left to right."""
    merges: dict[tuple[str, str], None] = {}
    for word in _WORDS.split():
        letters = [*word[:-1], word[-1] + "</w>"]
        left = letters[0]
        for right in letters[1:]:
            merges[left, right] = None
            left += right
    return list(merges)


def write_tokenizer(folder: Path) -> int:
    """A CLIP tokenizer with a vocabulary of our own; the number of its tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    letters, merges = _byte_letters(), _merges()
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += [token for token in dict.fromkeys(a + b for a, b in merges) if token not in tokens]
    tokens += _SPECIAL
    vocabulary = {token: number for number, token in enumerate(tokens)}
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges), ""]
    names = {"bos_token": _SPECIAL[0]}
    names |= dict.fromkeys(("eos_token", "unk_token", "pad_token"), _SPECIAL[1])
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("\n".join(lines), "utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    about = {"model_max_length": 77, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names | about))
    CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    return len(tokens)


def make_text_encoder(tokens: int) -> CLIPTextModel:
    """A CLIP text encoder of two narrow layers."""
    config = CLIPTextConfig(
        vocab_size=tokens, hidden_size=64, intermediate_size=128, projection_dim=64,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=77,
        hidden_act="quick_gelu", bos_token_id=tokens - 2, eos_token_id=tokens - 1,
        pad_token_id=tokens - 1,
    )
    model = CLIPTextModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("token_embedding.weight"):
                parameter.mul_(10)  # so that prompts differ
    return model.eval()


def make_unet() -> UNet2DConditionModel:
    """SD 1.5's UNet at a tenth of its width."""
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(32, 64, 128, 128), layers_per_block=2,
        cross_attention_dim=64, attention_head_dim=8, norm_num_groups=32,
    )
    design_unet(unet)
    return unet.eval()


def make_vae() -> AutoencoderKL:
    """SD 1.5's VAE, narrow, with weights set by hand."""
    vae = AutoencoderKL(
        block_out_channels=(32,) * 4, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, norm_num_groups=8,
        latent_channels=4, sample_size=256, scaling_factor=SCALE,
    )
    design_vae(vae)
    return vae.eval()


def make_scheduler() -> DDPMScheduler:
    """SD 1.5's noise schedule."""
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        steps_offset=1, timestep_spacing="leading",
    )


def write_model(folder: Path, *, seed: int = 0) -> Path:
    """A diffusers folder; equal seeds give equal weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = write_tokenizer(folder / "tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = {
            "text_encoder": make_text_encoder(tokens),
            "unet": make_unet(),
            "vae": make_vae(),
            "scheduler": make_scheduler(),
        }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def main() -> None:
    """Command line of this file."""
    parser = argparse.ArgumentParser(description="Write a small untrained SD 1.5 model.")
    parser.add_argument("folder", type=Path, help="diffusers folder to write")
    parser.add_argument("--checkpoint", type=Path, help="also write this .safetensors (LDM keys)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_model(options.folder, seed=options.seed)
    if options.checkpoint:
        write_ldm_file(options.folder, options.checkpoint)


if __name__ == "__main__":
    main()
