"""Open the WebUI's loaded model for guidance, and a host for jobs.

There are two families: AUTOMATIC1111's WebUI, and the Forge kinds, whose model has `forge_objects`.
Only this module and `checkpoints.py` distinguish them. All other code uses these functions and not
the UNet of `shared.sd_model` itself.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from typing import Any

from modules import shared

from fresco.guidance.ports import Host
from fresco.hosts.options import HostOptions
from fresco.hosts.webui.a1111 import A1111Model
from fresco.hosts.webui.forge import ForgeModel
from fresco.hosts.webui.model import HostModel
from fresco.settings import SamplingSettings


def open_model(model: Any) -> HostModel:
    """Open a loaded model for guidance; HostError if it cannot be guided.

    Args:
        model: what the WebUI calls `shared.sd_model`
    """
    return ForgeModel.of(model) if hasattr(model, "forge_objects") else A1111Model.of(model)


def open_host(options: HostOptions, sampling: SamplingSettings) -> Host:
    """Open the WebUI's model and sampling as the host of one job.

    Args:
        options: resolved, nothing empty but what the WebUI lacks.
    """
    # Jobs use more of the WebUI than the script in img2img, which must load without it.
    from fresco.hosts.webui.host import WebuiHost

    return WebuiHost(options, sampling, open_model)


def find_device() -> str:
    """Find the device of the model, and of the tensors of the guide."""
    return str(shared.device)
