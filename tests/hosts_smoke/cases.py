"""What is asked of every host: the same frames by each sampler, at cfg 1 and with ControlNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

OPTIONS: dict[str, Any] = {"batch_size": 4, "estimator": "dis", "optimization_iterations": 2}
"""FRESCO as it is by default, quickly. Five frames make two batches."""
PAYLOAD: dict[str, Any] = {
    "prompt": "a photo", "negative_prompt": "blurry", "steps": 6, "denoising_strength": 0.6,
    "sampler_name": "Euler a", "scheduler": "Automatic", "cfg_scale": 4.0, "seed": 7,
    "width": 64, "height": 64,
}
SETTINGS = {"enable_quantization": True}
"""In A1111 most samplers take whole timesteps only if told so; in Forge kinds they always do."""
COUNTS = {"slim": 3}
"""Frames; five for the small checkpoints."""
_NO_OPTIMIZATION = {"spatial_optimization": False, "temporal_optimization": False}
PARTS = {"slim": _NO_OPTIMIZATION, "sdxl": _NO_OPTIMIZATION}
"""What else is off. Optimisation takes the sign of small differences, and untrained networks of
full width make much of them: with it reForge is 9 levels from A1111 (mean 0.69) on `slim`, and Neo
5 (mean 0.25) on `sdxl` by Euler a; without it both are 1."""


@dataclass(frozen=True, slots=True)
class Case:
    """One request of img2img with FRESCO."""

    name: str
    """Also its column in the table."""
    payload: dict[str, Any] = field(default_factory=dict)
    control: bool = False


CASES = (
    Case("Euler a"),
    Case("DPM++ 2M Karras", {"sampler_name": "DPM++ 2M", "scheduler": "Karras"}),
    Case("DDIM", {"sampler_name": "DDIM"}),
    Case("cfg 1", {"cfg_scale": 1.0}),
    Case("ControlNet", control=True),
)


def list_options(model: str) -> dict[str, Any]:
    """FRESCO's options for a checkpoint."""
    return OPTIONS | PARTS.get(model, {})


def draw_frames(model: str) -> list[Image.Image]:
    """A disc that rolls over a landscape of plain colours."""
    frames = []
    for number in range(COUNTS.get(model, 5)):
        frame = Image.new("RGB", (64, 64), (120, 170, 220))
        pen = ImageDraw.Draw(frame)
        pen.rectangle((0, 40, 63, 63), fill=(90, 140, 60))
        pen.rectangle((40 - number, 24, 52 - number, 42), fill=(150, 80, 60))
        pen.ellipse((6 + 6 * number, 34, 22 + 6 * number, 50), fill=(230, 200, 40))
        frames.append(frame)
    return frames


def join_frames(images: Sequence[Image.Image]) -> Image.Image:
    """One strip, side by side."""
    return Image.fromarray(np.concatenate([np.asarray(image) for image in images], axis=1))
