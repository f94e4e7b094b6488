"""Use the WebUI's upscalers for keyframes that are propagated at a larger size."""

# pyright: reportMissingImports=false
from __future__ import annotations

import numpy as np
from modules import images, shared
from numpy.typing import NDArray
from PIL import Image

_NONE = "None"
"""The entry of the WebUI's list that enlarges by Lanczos."""


def list_upscalers() -> tuple[str, ...]:
    """Names of the upscalers that the WebUI offers now."""
    names = (upscaler.name for upscaler in shared.sd_upscalers)
    return tuple(name for name in names if name != _NONE)


def enlarge(image: NDArray[np.uint8], size: tuple[int, int], upscaler: str) -> NDArray[np.uint8]:
    """Enlarge an image [H, W, 3] to (width, height).

    Args:
        upscaler: one of `list_upscalers`.
    """
    width, height = size
    larger = images.resize_image(0, Image.fromarray(image), width, height, upscaler_name=upscaler)
    return np.asarray(larger.convert("RGB"))
