"""Lets sd-webui-controlnet load the small ControlNet of tests, where it is installed.

It has the sizes of SD 1.5 in a table; they become those of the network in the WebUI's folder.
"""

import sys
from pathlib import Path

from modules import paths, script_callbacks
from safetensors import safe_open

LEVELS = (1, 4, 7, 10)
"""Blocks of the encoder that begin a level."""


def fit_table(*_):
    """Enter the sizes, once all scripts are loaded."""
    guess = sys.modules.get("scripts.controlnet_model_guess")
    file = next((Path(paths.models_path) / "ControlNet").glob("tiny_*.safetensors"), None)
    if guess is None or file is None:
        return
    with safe_open(file, "pt") as network:
        widths = {
            place: len(network.get_tensor(name)) for place in (0, *LEVELS)
            if (name := f"control_model.zero_convs.{place}.0.weight") in network.keys()  # noqa: SIM118
        }
    first = widths.pop(0)
    guess.controlnet_default_config.update(
        model_channels=first, channel_mult=[width // first for width in widths.values()]
    )


script_callbacks.on_app_started(fit_table)
