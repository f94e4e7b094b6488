"""A checkpoint in one file: its configuration and tokenizer, without any network."""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

from fresco.errors import HostError
from fresco.hosts.detection import Architecture

_HUB_TOKENIZERS = (
    "openai/clip-vit-large-patch14",
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "runwayml/stable-diffusion-v1-5",
)
"""Repositories whose cached copies hold the tokenizer of Stable Diffusion 1.x."""
_PACKAGES = ("open_clip", "clip")
"""Python packages that ship the vocabulary of CLIP."""
_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 49152 - 256 - 2
_MARKS = ("<|startoftext|>", "<|endoftext|>")


def write_configuration(folder: Path, sizes: Architecture) -> None:
    """The configuration of a Stable Diffusion 1.x model of these sizes, as diffusers reads it."""
    _write(folder / "model_index.json", {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })
    _write(folder / "unet" / "config.json", {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu", "attention_head_dim": 8, "block_out_channels": sizes.widths,
        "cross_attention_dim": sizes.context, "in_channels": 4, "out_channels": 4,
        "layers_per_block": 2, "norm_eps": 1e-5, "norm_num_groups": 32, "sample_size": 64,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    })
    stages = len(sizes.vae_widths)
    _write(folder / "vae" / "config.json", {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu", "block_out_channels": sizes.vae_widths, "in_channels": 3,
        "out_channels": 3, "latent_channels": 4, "layers_per_block": sizes.vae_layers,
        "norm_num_groups": 32, "sample_size": 512, "scaling_factor": 0.18215,
        "down_block_types": ["DownEncoderBlock2D"] * stages,
        "up_block_types": ["UpDecoderBlock2D"] * stages,
    })
    _write(folder / "text_encoder" / "config.json", _make_text_configuration(sizes))
    _write(folder / "scheduler" / "scheduler_config.json", {
        "_class_name": "DDPMScheduler",
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "clip_sample": False, "num_train_timesteps": 1000, "prediction_type": "epsilon",
        "steps_offset": 1, "timestep_spacing": "leading", "variance_type": "fixed_small",
    })


def _make_text_configuration(sizes: Architecture) -> dict[str, Any]:
    """CLIP's text model; heads are 64 wide in the original, at least four in smaller ones."""
    return {
        "architectures": ["CLIPTextModel"], "model_type": "clip_text_model",
        "hidden_act": "quick_gelu", "hidden_size": sizes.context,
        "intermediate_size": sizes.text_inner, "max_position_embeddings": sizes.text_length,
        "num_attention_heads": max(4, sizes.context // 64), "num_hidden_layers": sizes.text_layers,
        "projection_dim": sizes.context, "vocab_size": sizes.vocabulary,
        "bos_token_id": sizes.vocabulary - 2, "eos_token_id": sizes.vocabulary - 1,
        "pad_token_id": sizes.vocabulary - 1,
    }


def _write(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_tokenizer(folder: Path, checkpoint: Path, *, vocabulary: int, offline: bool) -> None:
    """Put a CLIP tokenizer of this many tokens into a folder, or say where one was looked for."""
    beside = checkpoint.parent
    places = [beside / checkpoint.stem / "tokenizer", beside / checkpoint.stem,
              beside / "tokenizer", beside]
    found = next((place for place in places if (place / "vocab.json").is_file()), None)
    if found is not None:
        folder.mkdir(parents=True)
        for name in ("vocab.json", "merges.txt"):
            shutil.copyfile(found / name, folder / name)
        _finish_tokenizer(folder)
    elif packed := _find_packaged_vocabulary(beside):
        unpack_vocabulary(packed, folder)
    elif not _save_from_hub(folder, offline=offline):
        raise HostError(
            f"{checkpoint.name} needs CLIP's tokenizer, and none was found beside it, in the "
            f"packages {', '.join(_PACKAGES)}, or in the cache of the hub. Put vocab.json and "
            f"merges.txt of {_HUB_TOKENIZERS[0]} into {places[2]}, or install open-clip-torch."
        )
    _check_vocabulary(folder, checkpoint, vocabulary)


def _find_packaged_vocabulary(beside: Path) -> Path | None:
    """CLIP's vocabulary file, beside the checkpoint or in a package; nothing is imported."""
    places = [beside]
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        places += [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    return next((p / _VOCABULARY for p in places if (p / _VOCABULARY).is_file()), None)


def unpack_vocabulary(packed: Path, folder: Path) -> None:
    """vocab.json and merges.txt from the vocabulary file of OpenAI's CLIP."""
    with gzip.open(packed, "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : _MERGES + 1]
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(code) for code in kept] + [chr(256 + i) for i in range(256 - len(kept))]
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += [merge.replace(" ", "") for merge in merges]
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {token: number for number, token in enumerate([*tokens, *_MARKS])}
    (folder / "vocab.json").write_text(json.dumps(numbers, ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), "utf-8")
    _finish_tokenizer(folder)


def _finish_tokenizer(folder: Path) -> None:
    """The two small files that diffusers asks for."""
    names = {"bos_token": _MARKS[0]} | dict.fromkeys(
        ("eos_token", "unk_token", "pad_token"), _MARKS[1]
    )
    about = {"model_max_length": 77, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    _write(folder / "special_tokens_map.json", names)
    _write(folder / "tokenizer_config.json", names | about)


def _save_from_hub(folder: Path, *, offline: bool) -> bool:
    """Save the hub's tokenizer, from its cache or, unless offline, from the network."""
    from transformers import CLIPTokenizer

    tries = [(name, True) for name in _HUB_TOKENIZERS]
    for name, local in [*tries, *([] if offline else [(_HUB_TOKENIZERS[0], False)])]:
        for inner in ("", "tokenizer"):
            try:
                found = CLIPTokenizer.from_pretrained(
                    name, local_files_only=local, subfolder=inner
                )
            except (OSError, ValueError, TypeError):
                continue
            if len(found) > len(_MARKS):
                found.save_pretrained(folder)
                return True
    return False


def _check_vocabulary(folder: Path, checkpoint: Path, vocabulary: int) -> None:
    path = folder / "vocab.json"
    count = len(json.loads(path.read_text("utf-8"))) if path.exists() else vocabulary
    if count != vocabulary:
        raise HostError(
            f"{checkpoint.name} knows {vocabulary} tokens, the tokenizer found has {count}; put "
            f"its own vocab.json and merges.txt into {checkpoint.parent / checkpoint.stem}."
        )
