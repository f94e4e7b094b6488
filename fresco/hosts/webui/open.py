"""Open the WebUI's loaded model for guidance, and a host for jobs.

A branch for another kind of WebUI belongs here. The rest of the program calls these functions and
never touches the UNet of `shared.sd_model` itself.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from typing import Any

from modules import shared

from fresco.guidance.ports import Host
from fresco.hosts.options import HostOptions
from fresco.hosts.webui.model import WebuiModel
from fresco.settings import SamplingSettings


def open_model(model: Any) -> WebuiModel:
    """What guidance needs of a loaded model.

    Args:
        model: what the WebUI calls `shared.sd_model`
    """
    return WebuiModel.of(model)


def open_host(options: HostOptions, sampling: SamplingSettings) -> Host:
    """The WebUI's model and sampling as the host of one job.

    Args:
        options: resolved, nothing empty but what the WebUI lacks.
    """
    # Jobs use more of the WebUI than the script in img2img, which must load without it.
    from fresco.hosts.webui.host import WebuiHost

    return WebuiHost(options, sampling, open_model)


def find_device() -> str:
    """Where the model works, and where tensors for its guide belong."""
    return str(shared.device)
