"""Draw a quick preview of latents without a VAE.

A VAE's latents are nearly a small image under a linear map of their channels. The map is fitted to
the frames of the batch and their latents, so it suits every model.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ENLARGED = 4
"""Pixels on the side of a latent's cell in the preview, half of those that it stands for."""
_LONGEST = 1024
"""Longest side of the image."""


class LatentPreview:
    """Draws the latents of a batch when a preview is requested.

    Args:
        frames: uint8 [N, H, W, 3].
        clean: their latents [N, C, h, w].
    """

    def __init__(self, frames: NDArray[np.uint8], clean: Tensor) -> None:
        self._frames, self._clean = frames, clean
        self._map: NDArray[np.float32] | None = None
        self._estimate: Callable[[], Tensor] | None = None

    def take(self, estimate: Callable[[], Tensor]) -> None:
        """Set what is drawn from now on.

        Args:
            estimate: computes the denoised latents [N, C, h, w], when somebody looks.
        """
        self._estimate = estimate

    def draw(self) -> NDArray[np.uint8] | None:
        """Draw the frames of the batch side by side, RGB [H, W, 3]; None before the first step."""
        if self._estimate is None:
            return None
        with torch.no_grad():
            latents = self._estimate()
        values = _to_rows(latents)
        if self._map is None:
            self._map = self._fit()
        count, _, height, width = latents.shape
        colours = np.clip(values @ self._map, 0, 255).reshape(count, height, width, 3)
        return arrange([np.rint(image).astype(np.uint8) for image in colours])

    def _fit(self) -> NDArray[np.float32]:
        """Fit a map [C + 1, 3] from latents and 1 to RGB, by least squares."""
        height, width = self._clean.shape[2:]
        small = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
                 for frame in self._frames]
        wanted = np.stack(small).reshape(-1, 3).astype(np.float32)
        return np.linalg.lstsq(_to_rows(self._clean), wanted, rcond=None)[0]


def _to_rows(latents: Tensor) -> NDArray[np.float32]:
    """Reshape [N, C, h, w] to [N * h * w, C + 1], the last column 1."""
    values = latents.detach().to("cpu", torch.float32).movedim(1, -1).flatten(0, 2).numpy()
    return np.column_stack([values, np.ones(len(values), np.float32)])


def arrange(images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Arrange images [h, w, 3] of one size in rows, enlarged."""
    columns = int(np.ceil(np.sqrt(len(images))))
    blank = np.zeros_like(images[0])
    images = images + [blank] * (-len(images) % columns)
    rows = [np.concatenate(images[i:i + columns], axis=1) for i in range(0, len(images), columns)]
    whole = np.concatenate(rows, axis=0)
    scale = min(_ENLARGED, _LONGEST / max(whole.shape[:2]))
    size = max(1, round(whole.shape[1] * scale)), max(1, round(whole.shape[0] * scale))
    return np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_LINEAR), np.uint8)
