"""Requests that tests make: short ones, with nothing to download."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.helpers.tiny_models import square_frames
from tests.helpers.webui.client import Answer

QUICK: dict[str, Any] = {"estimator": "dis", "optimization_iterations": 2}
"""FRESCO as it is by default, quickly."""
PARTS = (
    "spatial_attention", "cross_frame_attention", "temporal_attention", "spatial_optimization",
    "temporal_optimization", "background_smoothing",
)
NONE: dict[str, Any] = QUICK | dict.fromkeys(PARTS, False)
"""Every part off."""
INPAINT: dict[str, Any] = {"inpaint_full_res": False, "inpainting_fill": 1}
"""Fields of a request with masks."""


def frames(count: int, width: int = 64) -> list[Image.Image]:
    """A bright square that moves."""
    made = [Image.fromarray(frame) for frame in square_frames(count)]
    return [image.resize((width, image.height)) for image in made]


def pixels(answer: Answer) -> NDArray[np.float32]:
    """[N, H, W, 3] in grey levels."""
    return np.stack([np.asarray(image, np.float32) for image in answer.images])


def band(top: int, height: int = 16, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A mask that changes a band of rows."""
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, top, size[0], top + height))
    return mask
