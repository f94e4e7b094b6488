"""Stored guided images, one strip a case; those of A1111 stand for all hosts.

`python -m tests.hosts_smoke A1111_DIR --write-reference` makes them anew.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent / "reference"
LEVELS = 2
"""The most that a grey level may differ between two hosts."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Between a host's images and the stored ones, in grey levels."""

    most: int
    mean: float

    @property
    def passed(self) -> bool:
        """Whether they count as equal."""
        return self.most <= LEVELS

    def __str__(self) -> str:
        return f"max {self.most}, mean {self.mean:.2f}"


def find_strip(model: str, case: str) -> Path:
    """The file of a case's images."""
    return FOLDER / model / f"{case.lower().replace('++', 'pp').replace(' ', '-')}.png"


def write_strip(model: str, case: str, strip: Image.Image) -> Path:
    """Store a case's images."""
    path = find_strip(model, case)
    path.parent.mkdir(parents=True, exist_ok=True)
    strip.save(path, optimize=True)
    return path


def compare_strip(model: str, case: str, strip: Image.Image) -> Difference | None:
    """Against the stored images; None where there are none."""
    path = find_strip(model, case)
    if not path.exists():
        return None
    stored = np.asarray(Image.open(path).convert("RGB"), np.int16)
    found = np.asarray(strip.convert("RGB"), np.int16)
    assert stored.shape == found.shape, f"{found.shape} pixels, stored {stored.shape}"
    gaps = np.abs(stored - found)
    return Difference(int(gaps.max()), float(gaps.mean()))


def digest(image: Image.Image) -> str:
    """The pixels, shortly."""
    return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()[:16]
