"""Guides from files: images that say more about a frame than its colours, such as normals, object
ids or texture coordinates of a 3D program."""

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
    """A guide's image for every frame. Picklable: each process reads what it needs."""

    name: str
    """For messages."""
    weight: float
    """Of all its channels together, as that of other guides."""
    files: Mapping[int, str]
    """Path of each frame's image, by the frame's number."""
    content: str
    """Digest of the files."""

    def read(self, number: int, size: tuple[int, int]) -> Image:
        """A frame's image [height, width, 3] at `size` (height, width); values are not mixed, since
        between two ids lies none."""
        image = decode_image(Path(self.files[number]))
        if image.shape[:2] == size:
            return image
        scaled = cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST)
        return np.asarray(scaled, np.uint8)
