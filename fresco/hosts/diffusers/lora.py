"""LoRA files, merged into the model before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fresco.errors import HostError
from fresco.hosts.detection import describe, find_lora_context, name_family, read_shapes


def split_weight(text: str) -> tuple[Path, float]:
    """FILE or FILE:WEIGHT."""
    whole = Path(text).expanduser(), 1.0
    name, colon, weight = text.rpartition(":")
    if not colon:
        return whole
    try:
        return Path(name).expanduser(), float(weight)
    except ValueError:  # the colon is the path's, as in C:\lora.safetensors
        return whole


def merge_loras(pipe: Any, loras: Sequence[str]) -> None:
    """Add LoRA files to the weights of the UNet and the text encoder, for good."""
    for text in loras:
        path, weight = split_weight(text)
        _check_lora(path, pipe.unet.config.cross_attention_dim)
        try:
            pipe.load_lora_weights(str(path.parent), weight_name=path.name, local_files_only=True)
            pipe.fuse_lora(lora_scale=weight)
        except (ValueError, KeyError, RuntimeError, OSError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise HostError(f"LoRA {path} does not fit the model: {reason}") from error
        pipe.unload_lora_weights()


def _check_lora(path: Path, context: int) -> None:
    if not path.is_file():
        raise HostError(f"There is no LoRA file {path}; check sampling.lora.")
    shapes = read_shapes(path)
    kind = describe(shapes)
    if kind != "a LoRA":
        raise HostError(f"sampling.lora {path.name} is {kind}; give a LoRA file.")
    made_for = find_lora_context(shapes)
    if made_for is not None and made_for != context:
        raise HostError(
            f"LoRA {path.name} is made for {name_family(made_for)}, the model is "
            f"{name_family(context)}; use a LoRA of the model's family."
        )
