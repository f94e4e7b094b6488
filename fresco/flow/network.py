"""Optical flow by networks: find and load weights, pad images, estimate pair by pair."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fresco.errors import WeightsError
from fresco.flow.gmflow import SIDE_MULTIPLE, GMFlow
from fresco.flow.padding import pad_images
from fresco.flow.precision import full_precision
from fresco.weights import file_sha256, load_state

EstimatePair = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]

RAFT_UPDATES = 20
"""Refinements of RAFT; its authors take 32 for figures, 12 for speed."""
RAFT_NAMES = ("raft_large.safetensors", "raft_large.pth")
"""Files looked for, state dicts of torchvision's raft_large."""


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """What distinguishes one flow network from another."""

    name: str
    """Name of the estimator."""
    build: Callable[[], nn.Module]
    """The network without its weights."""
    estimate: EstimatePair
    """Both flows of a pair of padded images [1, 3, H, W] in 0..255."""
    multiple: int
    """Number of which both sides must be multiples."""
    smallest: int
    """Smallest length of both sides."""
    note: str
    """One sentence for the user."""


def _import_raft() -> Any:
    try:
        return importlib.import_module("torchvision.models.optical_flow")
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise WeightsError(
            f"flow.estimator is 'raft', which needs torchvision, and it cannot be imported: "
            f"{error}. Install the torchvision that fits torch {torch.__version__}, or choose "
            "gmflow or dis."
        ) from error


def _build_raft() -> nn.Module:
    return _import_raft().raft_large(weights=None, progress=False)


def _estimate_raft(network: nn.Module, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    first, second = source / 127.5 - 1, target / 127.5 - 1
    forward = network(first, second, num_flow_updates=RAFT_UPDATES)[-1]
    backward = network(second, first, num_flow_updates=RAFT_UPDATES)[-1]
    return forward, backward


def _estimate_gmflow(network: nn.Module, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return network(source, target)


GMFLOW = NetworkSpec(
    "gmflow", GMFlow, _estimate_gmflow, multiple=SIDE_MULTIPLE, smallest=SIDE_MULTIPLE,
    note="Flow by GMFlow: the estimator of the published results, with the best occlusion masks; "
         "without a GPU about 10 s for a pair of 512x512, a hundred times DIS.",
)
RAFT = NetworkSpec(
    "raft", _build_raft, _estimate_raft, multiple=8, smallest=128,
    note="Flow by torchvision's RAFT: good occlusion masks, the slowest of the estimators; without "
         "a GPU about 50 s for a pair of 512x512.",
)


class NetworkEstimator:
    """Flow by a network whose weights are in a file.

    One pair at a time, so that a flow does not depend on which others were asked for with it.
    Loaded at first use and dropped when pickled: workers load their own.
    """

    def __init__(self, spec: NetworkSpec, weights: Path, device: torch.device | str
                 ) -> None:
        self._spec, self._weights = spec, weights
        self._device = torch.device(device)
        self._network: nn.Module | None = None
        self.name = spec.name
        self.device = str(self._device)
        self.note = spec.note
        self.fingerprint = f"{spec.name} {file_sha256(weights)} torch {torch.__version__}"
        self.former_fingerprint = f"{self.fingerprint} {self._device.type}"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_network": None, "_architecture": self._spec.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        known = {entry.name: entry for entry in (GMFLOW, RAFT)}
        self.__dict__.update(state | {"_architecture": known[state["_architecture"]]})

    def load_network(self) -> nn.Module:
        """Load the network with its weights, in evaluation mode."""
        if self._network is None:
            state = load_state(self._weights)
            network = self._spec.build()
            _load_weights(network, state, self._weights, self._spec.name)
            self._network = network.to(self._device).eval().requires_grad_(False)
        return self._network

    def estimate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `FlowEstimator.estimate`."""
        height, width = source.shape[-2:]
        network, kind = self.load_network(), self._spec
        forward, backward = [], []
        # A half-precision autocast around the run would blur positions by whole pixels.
        with torch.no_grad(), full_precision(self._device):
            for pair in zip(source.split(1), target.split(1), strict=True):
                first, second = (
                    pad_images(image.to(self._device, torch.float32), multiple=kind.multiple,
                           smallest=kind.smallest)
                    for image in pair
                )
                there, back = kind.estimate(network, first, second)
                forward.append(there[..., :height, :width].to(source.device))
                backward.append(back[..., :height, :width].to(source.device))
        return torch.cat(forward), torch.cat(backward)


def _load_weights(network: nn.Module, state: dict[str, Tensor], path: Path, name: str) -> None:
    wanted = {key: value.shape for key, value in network.state_dict().items()}
    given = {key.removeprefix("module."): value for key, value in state.items()}
    wrong = [key for key in wanted if key not in given or given[key].shape != wanted[key]]
    wrong += [key for key in given if key not in wanted]
    if wrong:
        raise WeightsError(
            f"{path} holds no weights of {name}: {len(wrong)} of its tensors do not fit, "
            f"such as {wrong[0]}. Give the published file."
        )
    network.load_state_dict(given)


def find_raft(folder: Path) -> Path:
    """The file of RAFT's weights; WeightsError where torchvision or the file is missing."""
    _import_raft()
    for name in RAFT_NAMES:
        if (folder / name).exists():
            return folder / name
    raise WeightsError(
        f"flow.estimator is 'raft', but {folder} holds neither {' nor '.join(RAFT_NAMES)}. Put "
        "the state dict of torchvision's raft_large there (21 MB), or choose gmflow or dis."
    )
