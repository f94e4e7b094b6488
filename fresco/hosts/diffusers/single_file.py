"""A checkpoint in one file: its networks and tokenizer, without any download."""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from fresco.errors import HostError, WeightsError
from fresco.hosts.detection import (
    CLIP,
    UNET,
    VAE,
    Architecture,
    make_missing_error,
    measure_checkpoint,
    measure_vae,
)
from fresco.hosts.diffusers.layout import rename_unet_key, rename_vae_key
from fresco.hosts.tensor_file import TensorFile

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


@dataclass(frozen=True, slots=True)
class LoadedParts:
    """The parts of a model before they go to their device."""

    unet: Any
    """UNet2DConditionModel."""
    vae: Any
    """AutoencoderKL; None where another one is given."""
    text_encoder: Any
    """CLIPTextModel."""
    tokenizer: Any
    """CLIPTokenizer."""
    schedule: Any
    """Configuration of the model's own scheduler."""


def load_single_file(path: Path, *, with_vae: bool, offline: bool) -> LoadedParts:
    """A Stable Diffusion 1.x checkpoint in float32 on the CPU, every tensor checked.

    Args:
        with_vae: whether its VAE is used.
    """
    file = TensorFile(path)
    sizes = measure_checkpoint(file, with_vae=with_vae)
    unet = build_empty(UNet2DConditionModel, _make_unet_configuration(sizes), path)
    text = _build_text_encoder(sizes, path)
    of_unet = {key: UNET + rename_unet_key(key) for key in unet.state_dict()}
    of_text = {key: f"{CLIP}{key.removeprefix('text_model.')}" for key in text.state_dict()}
    # All are checked before the first is read, which takes longest.
    check_tensors(unet, file, of_unet)
    check_tensors(text, file, of_text)
    vae = load_vae_file(file, VAE, None) if with_vae else None
    fill(unet, file, of_unet)
    fill(text, file, of_text)
    with tempfile.TemporaryDirectory(prefix="fresco-") as name:
        folder = Path(name) / "tokenizer"
        write_tokenizer(folder, path, vocabulary=sizes.vocabulary, offline=offline)
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    schedule = _SCHEDULE | {"prediction_type": _find_prediction(file)}
    scheduler: Any = DDPMScheduler.from_config(schedule)
    return LoadedParts(unet, vae, text, tokenizer, scheduler.config)


def _find_prediction(file: TensorFile) -> str:
    """What a checkpoint predicts, by its mark or by the yaml beside it, as the WebUI reads them."""
    if "v_pred" in file.shapes:
        return "v_prediction"
    beside = file.path.with_suffix(".yaml")
    try:
        about = yaml.safe_load(beside.read_text("utf-8")) if beside.is_file() else {}
        of_model = about["model"]["params"].get("parameterization", "eps") if about else "eps"
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise HostError(
            f"{beside} is not a configuration of Stable Diffusion; mend it or move it away."
        ) from error
    return "v_prediction" if of_model == "v" else "epsilon"


def load_vae_file(file: TensorFile, prefix: str, before: Mapping[str, Any] | None) -> Any:
    """The VAE of a file of the original layout, its tensors named with this prefix.

    Args:
        before: configuration of the VAE that it replaces, which counts where the sizes agree;
            None: that of Stable Diffusion 1.x.
    """
    widths, layers = measure_vae(file, prefix)
    sizes = {"block_out_channels": list(widths), "layers_per_block": layers}
    same = before is not None and sizes == {
        "block_out_channels": list(before["block_out_channels"]),
        "layers_per_block": before["layers_per_block"],
    }
    configuration = before if before is not None and same else _make_vae_configuration(sizes)
    vae = build_empty(AutoencoderKL, configuration, file.path)
    stages = len(widths)
    fill(vae, file, {key: prefix + rename_vae_key(key, stages) for key in vae.state_dict()})
    return vae


def build_empty(kind: Any, configuration: Mapping[str, Any], path: Path) -> Any:
    """A network of diffusers without values, to be filled from a file."""
    try:
        with torch.device("meta"):
            return kind.from_config(dict(configuration))
    except (ValueError, RuntimeError, TypeError) as error:
        raise WeightsError(
            f"{path.name} has tensors of sizes that no {kind.__name__} has ({error}); it is "
            "damaged or of another kind."
        ) from error


def _build_text_encoder(sizes: Architecture, path: Path) -> Any:
    configuration = CLIPTextConfig(**_make_text_configuration(sizes))
    try:
        with torch.device("meta"):
            model = CLIPTextModel(configuration)
    except (ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{path.name} has a text encoder of sizes that no CLIP has ({error}); it is damaged "
            "or of another kind."
        ) from error
    for module in model.modules():  # not in any file
        if getattr(module, "position_ids", None) is not None:
            module.position_ids = torch.arange(sizes.text_length)[None]
    return model


def check_tensors(model: Any, file: TensorFile, names: Mapping[str, str]) -> None:
    """Check that a file has every tensor of a network, each in its shape.

    Args:
        names: the file's name of each of the network's tensors, by the network's own.

    Raises:
        WeightsError: a tensor is missing or has another shape; the sentence names it.
    """
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    missing = [name for name in names.values() if name not in file.shapes]
    if missing:
        raise make_missing_error(file, missing[0], len(missing) - 1)
    wrong = [(name, wanted[key]) for key, name in names.items()
             if _drop_ones(file.shapes[name]) != _drop_ones(wanted[key])]
    if wrong:
        name, shape = wrong[0]
        others = f", and {len(wrong) - 1} more that do not fit" if len(wrong) > 1 else ""
        raise WeightsError(
            f"{file.path.name} has {file.name_in_file(name)} of shape {list(file.shapes[name])}, "
            f"where {list(shape)} is needed{others}; it is damaged or made for another model."
        )


def fill(model: Any, file: TensorFile, names: Mapping[str, str]) -> Any:
    """The network with the values of a file, checked as `check_tensors` does."""
    check_tensors(model, file, names)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    values = file.read(names.values())
    for key, name in names.items():
        path, _, leaf = key.rpartition(".")
        value = values.pop(name).reshape(shapes[key]).contiguous()
        # Not load_state_dict, which copies before torch 2.1, and nothing can be copied to `meta`.
        model.get_submodule(path).register_parameter(leaf, nn.Parameter(value, requires_grad=False))
    return model


def _drop_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its trailing sizes of one: a 1x1 convolution is a linear layer."""
    kept = list(shape)
    while len(kept) > 1 and kept[-1] == 1:
        kept.pop()
    return tuple(kept)


_SCHEDULE = {
    "_class_name": "DDPMScheduler",
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "clip_sample": False, "num_train_timesteps": 1000, "prediction_type": "epsilon",
    "steps_offset": 1, "timestep_spacing": "leading", "variance_type": "fixed_small",
}
"""The noise schedule that Stable Diffusion 1.x was trained with."""


def _make_unet_configuration(sizes: Architecture) -> dict[str, Any]:
    """A UNet of Stable Diffusion 1.x."""
    return {
        "act_fn": "silu", "attention_head_dim": 8, "block_out_channels": list(sizes.widths),
        "cross_attention_dim": sizes.context, "in_channels": 4, "out_channels": 4,
        "layers_per_block": 2, "norm_eps": 1e-5, "norm_num_groups": 32, "sample_size": 64,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    }


def _make_vae_configuration(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """A VAE of Stable Diffusion 1.x."""
    stages = len(sizes["block_out_channels"])
    return {
        "act_fn": "silu", "in_channels": 3, "out_channels": 3, "latent_channels": 4,
        "norm_num_groups": 32, "sample_size": 512, "scaling_factor": 0.18215,
        "down_block_types": ["DownEncoderBlock2D"] * stages,
        "up_block_types": ["UpDecoderBlock2D"] * stages, **sizes,
    }


def _make_text_configuration(sizes: Architecture) -> dict[str, Any]:
    """CLIP's text model; heads are 64 wide in the original, at least four in smaller ones."""
    return {
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
