"""What the WebUI offers for prompts: its styles, its LoRA files, its count of tokens."""

# pyright: reportMissingImports=false
from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modules import extra_networks, shared

log = logging.getLogger("fresco")

_LORA_ENDINGS = frozenset({".safetensors", ".pt", ".ckpt"})


def list_styles() -> tuple[str, ...]:
    """Names of the WebUI's styles."""
    known = getattr(shared.prompt_styles, "styles", None) or {}
    return tuple(str(name) for name, style in known.items()
                 if getattr(style, "prompt", "") or getattr(style, "negative_prompt", ""))


def add_styles(names: Sequence[str], prompt: str, negative: str) -> tuple[str, str]:
    """Prompt and negative prompt with styles added by the WebUI."""
    styles = shared.prompt_styles
    return (
        styles.apply_styles_to_prompt(prompt, list(names)),
        styles.apply_negative_styles_to_prompt(negative, list(names)),
    )


def list_loras() -> tuple[str, ...]:
    """Names of LoRA files: those of the WebUI's own list, else of its folder."""
    listed = getattr(sys.modules.get("networks"), "available_networks", None)
    if listed:
        return tuple(sorted(map(str, listed), key=str.lower))
    folder = Path(getattr(shared.cmd_opts, "lora_dir", "") or "")
    if not folder.name or not folder.is_dir():
        return ()
    names = {path.stem for path in folder.rglob("*") if path.suffix.lower() in _LORA_ENDINGS}
    return tuple(sorted(names, key=str.lower))


def count_tokens(prompt: str) -> tuple[int, int] | None:
    """Tokens of a prompt and the length of its chunks; None while no model is loaded, or where
    this WebUI counts otherwise."""
    try:
        hijack: Any = sys.modules["modules.sd_hijack"].model_hijack
        text, _ = extra_networks.parse_prompt(prompt)
        count, length = hijack.get_prompt_lengths(text)
        return int(count), int(length)
    except Exception as error:  # half a prompt, a model on its way, or another kind of text encoder
        log.debug("The tokens of a prompt are not known: %r", error)
        return None
