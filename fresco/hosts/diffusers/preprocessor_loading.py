"""Choose and load the preprocessor of a ControlNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fresco.errors import HostError
from fresco.hosts.diffusers.hed import HedNetwork
from fresco.hosts.diffusers.preprocessors import Canny, Depth, Preprocessor, SoftEdges
from fresco.settings import SamplingSettings
from fresco.weights import load_state, weights_folder

_HED_FILE = "ControlNetHED.pth"
_HED_HUB = "lllyasviel/Annotators"
_DEPTH_FOLDER = "dpt-hybrid-midas"
_DEPTH_HUB = "Intel/dpt-hybrid-midas"


def create_preprocessor(
    settings: SamplingSettings, device: torch.device, *, offline: bool
) -> Preprocessor:
    """The preprocessor of the option, its network on the device."""
    if settings.control == "canny":
        return Canny(settings.canny_low, settings.canny_high)
    if settings.control == "hed":
        return SoftEdges(_load_hed(offline=offline).to(device))
    return Depth(_load_depth(offline=offline).to(device))


def _load_hed(*, offline: bool) -> HedNetwork:
    path = weights_folder() / _HED_FILE
    if not path.is_file():
        path = _fetch_hed(path, offline=offline)
    network = HedNetwork()
    try:
        network.load_state_dict(load_state(path))
    except RuntimeError as error:
        raise HostError(
            f"{path} is no HED network of ControlNet's; fetch {_HED_FILE} again."
        ) from error
    return network.eval().requires_grad_(False)


def _fetch_hed(wanted: Path, *, offline: bool) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(_HED_HUB, _HED_FILE, local_files_only=offline))
    except (OSError, ValueError) as error:
        raise HostError(
            f"control is 'hed', but its network {_HED_FILE} (of {_HED_HUB}) is not at {wanted}; "
            "put it there, or use canny."
        ) from error


def _load_depth(*, offline: bool) -> Any:
    from transformers import DPTForDepthEstimation

    folder = weights_folder() / _DEPTH_FOLDER
    local = folder.is_dir()
    try:
        network = DPTForDepthEstimation.from_pretrained(
            str(folder) if local else _DEPTH_HUB, local_files_only=offline or local
        )
    except (OSError, ValueError, ImportError) as error:
        raise HostError(
            f"control is 'depth', but its network {_DEPTH_HUB} is not in {folder}; put its files "
            "there, or use canny."
        ) from error
    return network.eval().requires_grad_(False)
