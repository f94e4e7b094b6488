"""The WebUI's own live preview of the batch at work, by its own settings."""

# pyright: reportMissingImports=false
from __future__ import annotations

import numpy as np
from modules import shared
from numpy.typing import NDArray


def draw_preview() -> NDArray[np.uint8] | None:
    """What the WebUI shows of the call at work, RGB [H, W, 3]; None where it shows nothing, as its
    settings of live previews say."""
    if getattr(shared, "parallel_processing_allowed", True):
        shared.state.set_current_image()
    # Else the sampling itself draws, so that two threads never move parts of the model.
    image = shared.state.current_image
    return None if image is None else np.asarray(image.convert("RGB"), np.uint8)
