"""Load a checkpoint for a job, without changing what the WebUI's page has chosen."""

# pyright: reportMissingImports=false
from __future__ import annotations

import importlib
from typing import Any

from modules import sd_models, shared

from fresco.errors import HostError

_CHOICE = "sd_model_checkpoint"
"""The WebUI's setting of the chosen checkpoint."""


def load_checkpoint(name: str) -> Any:
    """Load a checkpoint unless it is loaded, and return its model.

    Args:
        name: as the WebUI lists it
    """
    info = sd_models.get_closet_checkpoint_match(name)
    if info is None:
        raise HostError(f"The checkpoint {name!r} no longer exists; choose another.")
    if hasattr(sd_models, "forge_model_reload"):
        _load_in_forge(info)
    elif getattr(_find_loaded(), "filename", None) != info.filename:
        # Loading writes the choice into the settings, which all users share.
        with sd_models.SkipWritingToConfig():
            sd_models.reload_model_weights(info=info)
    if _find_loaded() is None:
        raise HostError(f"The WebUI could not load {name!r}; its console says why.")
    return shared.sd_model


def _find_loaded() -> Any:
    """Find the name of the loaded checkpoint; None if nothing is loaded."""
    return getattr(shared.sd_model, "sd_checkpoint_info", None)


def _load_in_forge(info: Any) -> None:
    """Load a checkpoint in Forge or Neo, which load what their settings name when it is needed."""
    set_options = importlib.import_module("modules.sysinfo").set_config
    chosen = shared.opts.data.get(_CHOICE)
    set_options({_CHOICE: info.title}, run_callbacks=False, save_config=False)
    try:
        sd_models.forge_model_reload()  # does nothing if that is loaded already
    finally:
        if chosen is not None:
            set_options({_CHOICE: chosen}, run_callbacks=False, save_config=False)
