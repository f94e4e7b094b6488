"""Make the WebUI's own live preview of the current batch, by its own settings."""

# pyright: reportMissingImports=false
from __future__ import annotations

import numpy as np
from modules import shared
from numpy.typing import NDArray


def draw_preview() -> NDArray[np.uint8] | None:
    """Make the WebUI's preview of the running call, RGB [H, W, 3].

    None if its settings of live previews show nothing.
    """
    state, options = shared.state, shared.opts.data
    if not options.get("live_previews_enable", True):
        return None
    if options.get("show_progress_every_n_steps", 1) == -1:
        return None
    if getattr(shared, "parallel_processing_allowed", True):
        getattr(state, "do_set_current_image", state.set_current_image)()
    # For other kinds the sampling itself draws, so that two threads never move parts of the model.
    image = state.current_image
    return None if image is None else np.asarray(image.convert("RGB"), np.uint8)
