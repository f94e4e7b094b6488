"""Guides from files, such as normals, object ids or texture coordinates of a 3D program.

They say more about a frame than its colours do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.video.folder import decode_image

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class GuideFolder:
    """The images of a guide, one for each frame. Picklable: each process reads what it needs."""

    name: str
    """For messages."""
    weight: float
    """Weight of all its channels together, as for other guides."""
    files: Mapping[int, str]
    """Path of each frame's image, by the frame's number."""
    content: str
    """Digest of the files."""

    def read(self, number: int, size: tuple[int, int]) -> Image:
        """Read a frame's image [height, width, 3] at `size` (height, width).

        It is resized without interpolation, because there is nothing between two object ids.
        """
        image = decode_image(Path(self.files[number]))
        if image.shape[:2] == size:
            return image
        scaled = cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST)
        return np.asarray(scaled, np.uint8)
