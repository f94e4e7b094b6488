"""Add LoRA files to the weights of a model before it runs."""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fresco.errors import HostError, WeightsError
from fresco.hosts.detection import (
    SDXL,
    describe,
    find_lora_context,
    find_lycoris_kind,
    name_family,
)
from fresco.hosts.diffusers.layout import rename_unet_keys
from fresco.hosts.tensor_file import TensorFile, read_metadata
from fresco.planning.parsing import split_lora
from fresco.planning.prompt_syntax import list_loras
from fresco.settings import SamplingSettings

log = logging.getLogger("fresco")

_SUFFIXES = (".safetensors", ".pt", ".ckpt", ".bin")
_MATRIX = re.compile(
    r"^(?P<layer>.+?)(?:\.lora_(?P<one>down|up|mid|A|B)(?:\.default)?"
    r"|[._]lora(?:_linear_layer)?\.(?P<other>down|up))\.weight$"
)
_SIDES = {"A": "down", "B": "up"}
_OLD_TEXT_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


@dataclass(frozen=True, slots=True)
class ChosenLora:
    """A LoRA file and how strongly it acts."""

    path: Path
    """The file."""
    unet: float = 1.0
    """Weight in the UNet."""
    text: float = 1.0
    """Weight in the text encoder."""


@dataclass(frozen=True, slots=True)
class _Target:
    """A layer that a LoRA can change."""

    weight: Tensor
    """Its weight, in place."""
    part: str
    """Network that it belongs to: unet, text_encoder or text_encoder_2."""


def choose_loras(settings: SamplingSettings) -> tuple[ChosenLora, ...]:
    """List the LoRA files of the option, then those that the prompts name.

    The prompts must have passed `check_syntax`.

    Raises:
        HostError: a file does not exist, or a name fits several files.
    """
    chosen = [ChosenLora(path, weight, weight) for path, weight in map(split_lora, settings.lora)]
    for lora in chosen:
        if not lora.path.is_file():
            raise HostError(f"There is no LoRA file {lora.path}; check sampling.lora.")
    tags = list_loras(settings)
    files = _list_files(settings.lora_dir) if tags else []
    chosen += [ChosenLora(_find_file(tag.name, files, settings.lora_dir), tag.unet, tag.text)
               for tag in tags]
    return tuple(chosen)


def _list_files(name: str) -> list[Path]:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise HostError(f"sampling.lora_dir {folder} is not a folder; check it.")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)


def _find_file(name: str, files: Sequence[Path], folder: str) -> Path:
    """Find the file of that name, or the one that was given this name when it was trained."""
    found = [path for path in files if path.stem == name] or [
        path for path in files if path.suffix.lower() == ".safetensors"
        and read_metadata(path).get("ss_output_name") == name
    ]
    if len(found) == 1:
        return found[0]
    if found:
        both = " and ".join(map(str, found[:2]))
        raise HostError(f"A prompt names the LoRA {name}, but {both} have that name; rename one.")
    close = difflib.get_close_matches(name, [path.stem for path in files], 1)
    hint = f"did you mean {close[0]}?" if close else f"{len(files)} LoRA files are there."
    raise HostError(
        f"A prompt names the LoRA {name}, which is not in sampling.lora_dir {folder}; {hint}"
    )


def merge_loras(
    unet: Any, text_encoder: Any, loras: Iterable[ChosenLora], *, text_encoder_2: Any = None
) -> None:
    """Add LoRA files permanently to the weights of the UNet and the text encoders.

    Args:
        text_encoder_2: SDXL's second one
    """
    targets: dict[str, _Target] | None = None
    for lora in loras:
        model = SDXL if text_encoder_2 is not None else name_family(unet.config.cross_attention_dim)
        file = _open_lora(lora.path, unet.config.cross_attention_dim, model)
        if targets is None:
            targets = _list_targets(unet, text_encoder, text_encoder_2)
        _merge(lora, file, targets)
        log.info("LoRA %s, weight %g.", lora.path.name, lora.unet)


def _open_lora(path: Path, context: int, model: str) -> TensorFile:
    file = TensorFile(path)
    kind = describe(file.shapes)
    if find_lycoris_kind(file.shapes):
        raise HostError(
            f"LoRA {path.name} is {kind}, which only the WebUI reads; use a plain LoRA, or "
            "translate in the WebUI."
        )
    if not kind.startswith("a LoRA"):
        raise HostError(f"sampling.lora {path.name} is {kind}; give a LoRA file.")
    made_for = find_lora_context(file.shapes)
    family = kind.removeprefix("a LoRA for ")
    foreign = family != model and family in ("Flux", "Stable Diffusion 3", SDXL)
    if foreign or made_for not in (None, context):
        raise HostError(
            f"LoRA {path.name} is made for {family}, the model is {model}; use a LoRA of the "
            "model's family."
        )
    return file


def _list_targets(unet: Any, text_encoder: Any, text_encoder_2: Any) -> dict[str, _Target]:
    """List every layer with a matrix or a convolution, by all names that LoRA files use for it."""
    targets: dict[str, _Target] = {}
    weights = _list_weights(unet)
    originals = rename_unet_keys(weights)
    for key, weight in weights.items():
        layer, original = (name.removesuffix(".weight") for name in (key, originals[key]))
        names = (f"lora_unet_{layer.replace('.', '_')}",
                 f"lora_unet_{original.replace('.', '_')}", f"unet.{layer}", layer)
        targets |= dict.fromkeys(names, _Target(weight, "unet"))
    first = ("lora_te", "lora_te1") if text_encoder_2 is None else ("lora_te1",)
    for part, encoder, starts in (("text_encoder", text_encoder, first),
                                  ("text_encoder_2", text_encoder_2, ("lora_te2",))):
        if encoder is None:
            continue
        for key, weight in _list_weights(encoder).items():
            layer = key.removesuffix(".weight").removeprefix("text_model.")
            whole = layer if layer == "text_projection" else f"text_model.{layer}"
            names = [f"{start}_{whole.replace('.', '_')}" for start in starts]
            names += [f"{part}.{layer}", f"{part}.{whole}"]
            targets |= dict.fromkeys(names, _Target(weight, part))
    return targets


def _list_weights(network: Any) -> dict[str, Tensor]:
    """List the matrices and convolutions of a network."""
    return {key: weight.data for key, weight in network.named_parameters()
            if key.endswith(".weight") and weight.ndim > 1}


def _normalise(layer: str) -> str:
    """Remove from a layer's name in a file of diffusers what differs between its versions."""
    if layer.startswith("lora_"):
        return layer
    layer = layer.replace(".processor.", ".")
    stem, _, last = layer.rpartition(".")
    if last in _OLD_TEXT_NAMES and ".self_attn" in stem:
        return f"{stem}.{_OLD_TEXT_NAMES[last]}"
    return f"{layer}.0" if last == "to_out" else layer


def _merge(lora: ChosenLora, file: TensorFile, targets: Mapping[str, _Target]) -> None:
    layers: dict[str, dict[str, str]] = {}
    for name in file.shapes:
        if match := _MATRIX.match(name):
            part = match["one"] or match["other"]
            layers.setdefault(match["layer"], {})[_SIDES.get(part, part)] = name
    unknown = [layer for layer in layers if _normalise(layer) not in targets]
    if len(unknown) == len(layers):
        raise HostError(
            f"LoRA {file.path.name} is for layers that the model does not have, such as "
            f"{unknown[0]}; use a LoRA of the model's family."
        )
    if unknown:
        log.warning(
            "LoRA %s has %d layers that the model does not have, such as %s; they are left out.",
            file.path.name, len(unknown), unknown[0],
        )
    scales = _read_scales(file)
    for layer, parts in layers.items():
        if target := targets.get(_normalise(layer)):
            weight = lora.unet if target.part == "unet" else lora.text
            change = _read_change(file, layer, parts, scales.get(target.part))
            target.weight.add_(_fit(change, target.weight, file, parts["up"], weight))


def _read_scales(file: TensorFile) -> dict[str, float]:
    """Read alpha over rank from a file of peft, by network."""
    try:
        about = json.loads(file.metadata.get("lora_adapter_metadata", "{}"))
        found = {part: (about.get(f"{part}.lora_alpha"), about.get(f"{part}.r"))
                 for part in ("unet", "text_encoder", "text_encoder_2")}
        return {part: alpha / rank for part, (alpha, rank) in found.items() if alpha and rank}
    except (ValueError, TypeError, AttributeError):
        return {}


def _read_change(
    file: TensorFile, layer: str, parts: Mapping[str, str], scale: float | None
) -> tuple[Tensor, float]:
    """Read the unweighted change of a layer, and its factor."""
    for side in ("down", "up"):
        if side not in parts:
            raise WeightsError(
                f"{file.path.name} lacks the matrix {side!r} of {layer}; it is incomplete. Fetch "
                "it again."
            )
    values = file.read(parts.values())
    down, up = values[parts["down"]], values[parts["up"]]
    rank = down.shape[0]
    middle = values[parts["mid"]] if "mid" in parts else None
    fits = up.ndim > 1 and down.ndim > 1 and up.shape[1] == rank
    if middle is not None:
        fits = up.ndim > 1 and down.ndim > 1 and middle.shape[:2] == (up.shape[1], rank)
    if not fits:
        raise WeightsError(
            f"{file.path.name} has {parts['up']} of shape {list(up.shape)} and {parts['down']} of "
            f"shape {list(down.shape)}, which do not fit together; it is damaged."
        )
    if middle is None:
        change = up.flatten(1) @ down.flatten(1)
    else:  # a convolution between two of size 1
        change = torch.einsum("or,rs...,si->oi...", up.flatten(1), middle, down.flatten(1))
    if f"{layer}.alpha" in file.shapes:
        scale = file.read([f"{layer}.alpha"])[f"{layer}.alpha"].item() / rank
    return change, 1.0 if scale is None else scale


def _fit(
    change: tuple[Tensor, float], weight: Tensor, file: TensorFile, name: str, strength: float
) -> Tensor:
    """Bring a change to the shape of a layer's weight."""
    matrix, scale = change
    if matrix.numel() != weight.numel() or len(matrix) != len(weight):
        raise WeightsError(
            f"{file.path.name} has {name} for a layer of shape {list(matrix.shape)}, where the "
            f"model has {list(weight.shape)}; it is made for another model."
        )
    return matrix.reshape(weight.shape) * (scale * strength)
