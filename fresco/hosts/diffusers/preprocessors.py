"""Preprocessors of ControlNet, which compute hints frame by frame, and their networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fresco.control import NO_MODULE, OWN, ControlUnit
from fresco.errors import HostError, SettingsError
from fresco.hosts.diffusers.hed import HedNetwork
from fresco.hosts.options import Slider, Sliders, check_thresholds, complete_unit
from fresco.memory import memory_errors
from fresco.weights import load_state, weights_folder

_HED_FILE = "ControlNetHED.pth"
_HED_HUB = "lllyasviel/Annotators"
_DEPTH_FOLDER = "dpt-hybrid-midas"
_DEPTH_HUB = "Intel/dpt-hybrid-midas"
_DEPTH_SIDE = 384
"""Side of the images that DPT was trained on."""


class Preprocessor(Protocol):
    """Makes hints from frames."""

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Convert [N, H, W, 3] RGB uint8 to hints [N, H, W, 3] in 0..1."""
        ...


class Canny:
    """Edges by Canny's detector; white on black."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Convert [N, H, W, 3] RGB uint8 to edges [N, H, W, 3] of 0 and 1."""
        edges = [cv2.Canny(frame, self._low, self._high) for frame in frames]
        return np.repeat(np.stack(edges)[..., None], 3, axis=-1).astype(np.float32) / 255


class Plain:
    """Returns the frames themselves."""

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Convert [N, H, W, 3] RGB uint8 to 0..1."""
        return frames.astype(np.float32) / 255


class SoftEdges:
    """Soft edges by HED."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Convert [N, H, W, 3] RGB uint8 to [N, H, W, 3], 1 = edge."""
        return _run_each(frames, self._network, self._network)


class Depth:
    """Nearness by a DPT network of transformers, each frame stretched to 0..1."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Convert [N, H, W, 3] RGB uint8 to [N, H, W, 3], 1 = nearest."""
        return _run_each(frames, self._network, self._nearness)

    def _nearness(self, x: Tensor) -> Tensor:
        square = interpolate(
            x / 127.5 - 1, (_DEPTH_SIDE, _DEPTH_SIDE), mode="bicubic", align_corners=False
        )
        depth = self._network(pixel_values=square).predicted_depth[:, None]
        depth = interpolate(depth, x.shape[-2:], mode="bicubic", align_corners=False)
        low, high = depth.amin(), depth.amax()
        return (depth - low) / (high - low).clamp(min=1e-6)


@torch.no_grad()
def _run_each(
    frames: NDArray[np.uint8], network: nn.Module, work: Callable[[Tensor], Tensor]
) -> NDArray[np.float32]:
    """Run each frame through a network that maps [1, 3, H, W] in 0..255 to [1, 1, H, W]."""
    device = next(network.parameters()).device
    hints = []
    for frame in frames:
        x = torch.from_numpy(np.ascontiguousarray(frame)).to(device)
        x = rearrange(x, "h w c -> 1 c h w").float()
        with memory_errors("while computing a ControlNet's hints"):
            hints.append(work(x)[0, 0].cpu().numpy())
    return np.repeat(np.stack(hints)[..., None], 3, axis=-1).astype(np.float32)


MODULES = (NO_MODULE, "canny", "hed", "depth")
"""Preprocessors that need no further package."""
SLIDERS: Mapping[str, Sliders] = {"canny": {
    "threshold_a": Slider("Lower threshold", 0, 255, 50),
    "threshold_b": Slider("Upper threshold", 0, 255, 100),
}}
"""Adjustable numbers of the preprocessors that have some."""


def complete_units(units: Sequence[ControlUnit]) -> tuple[ControlUnit, ...]:
    """Choose the preprocessor of each unit; SettingsError for what is not available here."""
    return tuple(_complete(unit) for unit in units)


def _complete(unit: ControlUnit) -> ControlUnit:
    unit = complete_unit(unit, MODULES)
    if unit.module not in MODULES:
        raise SettingsError(
            f"The preprocessor of ControlNet {unit.model} is {unit.module!r}, which needs packages "
            f"that FRESCO does not bring; choose one of {', '.join(MODULES)}, or make the hints "
            "elsewhere and give their folder or video as hints."
        )
    return check_thresholds(unit, SLIDERS.get(unit.module, {}))


def create_preprocessor(
    unit: ControlUnit, device: torch.device, *, offline: bool
) -> Preprocessor:
    """Create the preprocessor of a completed unit, with its network on the device."""
    own = _create(unit, device, offline=offline)
    return Resized(own, unit.resolution) if unit.resolution else own


def _create(unit: ControlUnit, device: torch.device, *, offline: bool) -> Preprocessor:
    if unit.module == NO_MODULE:
        return Plain()
    if unit.module == "canny":
        return Canny(*(
            slider.usual if (value := getattr(unit, name)) == OWN else value
            for name, slider in SLIDERS["canny"].items()
        ))
    if unit.module == "hed":
        return SoftEdges(_load_hed(offline=offline).to(device))
    return Depth(_load_depth(offline=offline).to(device))


class Resized:
    """Runs another preprocessor on frames of another size."""

    def __init__(self, own: Preprocessor, resolution: int) -> None:
        """
        Args:
            resolution: short side of what it sees, in pixels.
        """
        self._own, self._resolution = own, resolution

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Convert [N, H, W, 3] RGB uint8 to hints [N, H, W, 3] in 0..1."""
        height, width = frames.shape[1:3]
        scale = self._resolution / min(height, width)
        seen = max(1, round(width * scale)), max(1, round(height * scale))
        hints = self._own(_scale(frames, seen))
        return _scale(hints, (width, height))


def _scale(images: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize [N, H, W, 3] to (width, height)."""
    kind = cv2.INTER_AREA if size[0] < images.shape[2] else cv2.INTER_LINEAR
    return np.stack([cv2.resize(image, size, interpolation=kind) for image in images])


def _load_hed(*, offline: bool) -> HedNetwork:
    path = weights_folder() / _HED_FILE
    if not path.is_file():
        path = _fetch_hed(path, offline=offline)
    network = HedNetwork()
    try:
        network.load_state_dict(load_state(path))
    except RuntimeError as error:
        raise HostError(
            f"{path} is not the HED network of ControlNet's annotators; fetch {_HED_FILE} again."
        ) from error
    return network.eval().requires_grad_(False)


def _fetch_hed(wanted: Path, *, offline: bool) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(_HED_HUB, _HED_FILE, local_files_only=offline))
    except (OSError, ValueError) as error:
        raise HostError(
            f"A ControlNet unit's preprocessor is 'hed', but its network {_HED_FILE} (of "
            f"{_HED_HUB}) is not at {wanted}; put it there, or use canny."
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
            f"A ControlNet unit's preprocessor is 'depth', but its network {_DEPTH_HUB} is not in "
            f"{folder}; put its files there, or use canny."
        ) from error
    return network.eval().requires_grad_(False)
