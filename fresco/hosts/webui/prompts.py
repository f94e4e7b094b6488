"""Styles, LoRA files and token counts of the WebUI.

All of this is optional: a WebUI that does not have it, or has it in another form, offers none.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modules import shared

log = logging.getLogger("fresco")

_LORA_ENDINGS = frozenset({".safetensors", ".pt", ".ckpt"})


def list_styles() -> tuple[str, ...]:
    """Names of the WebUI's styles."""
    known = getattr(_find_styles(), "styles", None) or {}
    return tuple(str(name) for name, style in known.items()
                 if getattr(style, "prompt", "") or getattr(style, "negative_prompt", ""))


def _find_styles() -> Any:
    return getattr(shared, "prompt_styles", None)


def add_styles(names: Sequence[str], prompt: str, negative: str) -> tuple[str, str]:
    """Add styles of the WebUI to prompt and negative prompt."""
    styles = _find_styles()
    return (
        styles.apply_styles_to_prompt(prompt, list(names)),
        styles.apply_negative_styles_to_prompt(negative, list(names)),
    )


def list_loras() -> tuple[str, ...]:
    """Names of LoRA files: from the WebUI's own list, else from its folder."""
    listed = getattr(sys.modules.get("networks"), "available_networks", None)
    if listed:
        return tuple(sorted(map(str, listed), key=str.lower))
    folder = Path(getattr(getattr(shared, "cmd_opts", None), "lora_dir", "") or "")
    if not folder.name or not folder.is_dir():
        return ()
    names = {path.stem for path in folder.rglob("*") if path.suffix.lower() in _LORA_ENDINGS}
    return tuple(sorted(names, key=str.lower))


def count_tokens(prompt: str) -> tuple[int, int] | None:
    """Count the tokens of a prompt, and how many its chunks can have; None if not known now."""
    try:
        hijack: Any = sys.modules["modules.sd_hijack"].model_hijack
        text, _ = importlib.import_module("modules.extra_networks").parse_prompt(prompt)
        count, length = hijack.get_prompt_lengths(text)
        return int(count), int(length)
    except Exception as error:  # such as an incomplete prompt, or a model being moved
        log.debug("The tokens of a prompt are not known: %r", error)
        return None
