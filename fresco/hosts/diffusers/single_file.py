"""Load networks and tokenizer from a checkpoint in one file, without any download."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from fresco.errors import WeightsError
from fresco.hosts.checkpoint import (
    TextSizes,
    make_missing_error,
    measure_checkpoint,
    measure_vae,
)
from fresco.hosts.detection import SDXL, UNET, VAE
from fresco.hosts.diffusers.configurations import (
    SCHEDULE,
    VAE_SCALES,
    make_text_configuration,
    make_unet_configuration,
    make_vae_configuration,
)
from fresco.hosts.diffusers.layout import (
    Source,
    find_open_clip_source,
    rename_unet_keys,
    rename_vae_key,
)
from fresco.hosts.diffusers.prediction import find_prediction
from fresco.hosts.diffusers.tokenizer import load_tokenizers
from fresco.hosts.tensor_file import TensorFile


@dataclass(frozen=True, slots=True)
class LoadedParts:
    """The parts of a model, on the CPU."""

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
    text_encoder_2: Any = None
    """SDXL's second one, CLIPTextModelWithProjection."""
    tokenizer_2: Any = None
    """Its CLIPTokenizer: the same words, other padding."""
    zero_empty: bool = False
    """Whether an empty negative prompt is conditioning of zeros."""
    vae_scale: float = 0.18215
    """Factor with which latents are multiplied, if another VAE does not state it."""


def load_single_file(
    path: Path, *, with_vae: bool, offline: bool, prediction: str = "auto",
    dtype: torch.dtype = torch.float32,
) -> LoadedParts:
    """Load a checkpoint to the CPU, and check every tensor.

    Args:
        with_vae: whether its VAE is used.
        prediction: what it predicts, as the option says it; auto: as the file says it.
        dtype: of the UNet and the text encoders.
    """
    file = TensorFile(path)
    sizes = measure_checkpoint(file, with_vae=with_vae)
    predicts = find_prediction(file, sizes.family, prediction)
    scheduler: Any = DDPMScheduler.from_config(SCHEDULE | predicts)
    unet = build_empty(UNet2DConditionModel, make_unet_configuration(sizes), path)
    texts = [_build_text_encoder(text, sizes.family, path) for text in sizes.texts]
    names = rename_unet_keys(unet.state_dict())
    of_unet = {key: UNET + name for key, name in names.items()}
    of_texts = [_name_text_tensors(*pair) for pair in zip(texts, sizes.texts, strict=True)]
    # All are checked before the first is read, which takes longest.
    check_tensors(unet, file, of_unet)
    for text, of_text in zip(texts, of_texts, strict=True):
        check_tensors(text, file, of_text)
    scale = VAE_SCALES[sizes.family]
    vae = load_vae_file(file, VAE, None, scale=scale) if with_vae else None
    fill(unet, file, of_unet, dtype=dtype)
    for text, of_text in zip(texts, of_texts, strict=True):
        fill(text, file, of_text, dtype=dtype)
    tokenizers = load_tokenizers(path, sizes.texts, offline=offline)
    further = {"text_encoder_2": texts[1], "tokenizer_2": tokenizers[1]} if texts[1:] else {}
    return LoadedParts(
        unet, vae, texts[0], tokenizers[0], scheduler.config, zero_empty=sizes.family == SDXL,
        vae_scale=scale, **further,
    )


def load_vae_file(
    file: TensorFile, prefix: str, before: Mapping[str, Any] | None, *, scale: float
) -> Any:
    """Load the VAE from a file of the original layout.

    Args:
        before: configuration of the VAE that it replaces, which counts where the sizes agree;
            None: that of Stable Diffusion.
        scale: what latents are multiplied with
    """
    widths, layers = measure_vae(file, prefix)
    sizes = {"block_out_channels": list(widths), "layers_per_block": layers}
    same = before is not None and sizes == {
        "block_out_channels": list(before["block_out_channels"]),
        "layers_per_block": before["layers_per_block"],
    }
    configuration = dict(before) if before is not None and same else make_vae_configuration(
        sizes | {"scaling_factor": scale}
    )
    vae = build_empty(AutoencoderKL, configuration, file.path)
    stages = len(widths)
    fill(vae, file, {key: prefix + rename_vae_key(key, stages) for key in vae.state_dict()})
    return vae


def build_empty(kind: Any, configuration: Mapping[str, Any], path: Path) -> Any:
    """Build a network of diffusers without values, to be filled from a file."""
    try:
        with torch.device("meta"):
            return kind.from_config(dict(configuration))
    except (ValueError, RuntimeError, TypeError) as error:
        raise WeightsError(
            f"{path.name} has tensors of sizes that no {kind.__name__} has ({error}); it is "
            "damaged or of another kind."
        ) from error


def _build_text_encoder(sizes: TextSizes, family: str, path: Path) -> Any:
    kind = CLIPTextModelWithProjection if sizes.pooled else CLIPTextModel
    try:
        with torch.device("meta"):
            model = kind(CLIPTextConfig(**make_text_configuration(sizes, family)))
    except (ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{path.name} has a text encoder of sizes that no CLIP has ({error}); it is damaged "
            "or of another kind."
        ) from error
    for module in model.modules():  # not stored in files
        if getattr(module, "position_ids", None) is not None:
            module.position_ids = torch.arange(sizes.length)[None]
    return model


def _name_text_tensors(model: Any, sizes: TextSizes) -> dict[str, str | Source]:
    """Find where the file has each tensor of a text encoder."""
    if sizes.is_open_clip:
        return {key: find_open_clip_source(key, sizes.prefix) for key in model.state_dict()}
    return {key: f"{sizes.prefix}{key.removeprefix('text_model.')}" for key in model.state_dict()}


def _list_sources(names: Mapping[str, str | Source]) -> dict[str, Source]:
    return {key: Source(name) if isinstance(name, str) else name for key, name in names.items()}


def check_tensors(model: Any, file: TensorFile, names: Mapping[str, str | Source]) -> None:
    """Check that a file has every tensor of a network, each with its shape.

    Args:
        names: where the file has each of the network's tensors, by the network's own name.

    Raises:
        WeightsError: a tensor is missing or has another shape; the sentence names it.
    """
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    wanted = {source.name: source.shape_in_file(shapes[key])
              for key, source in _list_sources(names).items()}
    missing = [name for name in wanted if name not in file.shapes]
    if missing:
        raise make_missing_error(file, missing[0], len(missing) - 1)
    wrong = [(name, shape) for name, shape in wanted.items()
             if _drop_ones(file.shapes[name]) != _drop_ones(shape)]
    if wrong:
        name, shape = wrong[0]
        others = f", and {len(wrong) - 1} more that do not fit" if len(wrong) > 1 else ""
        raise WeightsError(
            f"{file.path.name} has {file.name_in_file(name)} of shape {list(file.shapes[name])}, "
            f"where {list(shape)} is needed{others}; it is damaged or made for another model."
        )


def fill(
    model: Any, file: TensorFile, names: Mapping[str, str | Source], *,
    dtype: torch.dtype = torch.float32,
) -> Any:
    """Fill a network with the values of a file that `check_tensors` has checked."""
    check_tensors(model, file, names)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    sources = _list_sources(names)
    values = file.read({source.name for source in sources.values()}, dtype)
    for key, source in sources.items():
        path, _, leaf = key.rpartition(".")
        value = source.take(values[source.name]).reshape(shapes[key]).contiguous()
        # Not load_state_dict, which copies before torch 2.1, and nothing can be copied to `meta`.
        model.get_submodule(path).register_parameter(leaf, nn.Parameter(value, requires_grad=False))
    return model


def _drop_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Remove trailing sizes of one from a shape: a 1x1 convolution equals a linear layer."""
    kept = list(shape)
    while len(kept) > 1 and kept[-1] == 1:
        kept.pop()
    return tuple(kept)
