"""Estimators of optical flow: one interface, several backends."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fresco.errors import WeightsError
from fresco.flow.cache import CachedEstimator
from fresco.flow.interface import FlowEstimator
from fresco.flow.network import GMFLOW, RAFT, NetworkEstimator, find_raft
from fresco.flow.padding import pad_images
from fresco.progress import Progress
from fresco.settings import FlowSettings
from fresco.weights import GMFLOW_SINTEL, ensure_weights, find_weights, weights_folder

log = logging.getLogger("fresco")

SMALLEST_DIS_SIDE = 16
"""Sides DIS is given at least; it refuses images under 12 pixels."""


class DisEstimator:
    """OpenCV's dense inverse search, medium preset, on grey images: no weights, CPU only."""

    name = "dis"
    device = "cpu"
    fingerprint = f"dis medium opencv {cv2.__version__}"
    former_fingerprint = fingerprint
    note = (
        "Flow by OpenCV DIS: no download, but it calls far more pixels occluded than a network "
        "(car clip: .239 against .073), so less is shared between frames."
    )

    def estimate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `FlowEstimator.estimate`."""
        pairs = list(zip(self._convert_to_grey(source), self._convert_to_grey(target), strict=True))
        forward = np.stack([self._search_flow(a, b) for a, b in pairs])
        backward = np.stack([self._search_flow(b, a) for a, b in pairs])
        height, width = source.shape[-2:]
        first, second = (
            torch.from_numpy(flow[:, :height, :width].transpose(0, 3, 1, 2).copy())
            for flow in (forward, backward)
        )
        return first.to(source.device), second.to(source.device)

    @staticmethod
    def _convert_to_grey(images: Tensor) -> list[NDArray[np.uint8]]:
        large = pad_images(images.float(), smallest=SMALLEST_DIS_SIDE).round().clamp(0, 255)
        frames = large.byte().cpu().permute(0, 2, 3, 1).numpy()
        return [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]

    @staticmethod
    def _search_flow(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.float32]:
        # A fresh one each time: a used one keeps the pyramid of the size it saw before.
        search = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_MEDIUM)
        # None, no start; OpenCV's stubs leave it out.
        return search.calc(source, target, None)  # type: ignore[call-overload]


def create_estimator(
    settings: FlowSettings, device: torch.device | str = "cpu", *,
    cache: Path | None = None, progress: Progress | None = None,
) -> FlowEstimator:
    """The estimator the settings ask for; which one it is and what it costs is logged.

    Args:
        device: where a network runs.
        cache: folder that keeps flow and occlusion; None: nothing is kept.
        progress: hears of a download.
    """
    estimator = _choose_estimator(settings, device, progress)
    log.info("%s", estimator.note)
    return estimator if cache is None else CachedEstimator(estimator, cache)


def _choose_estimator(
    settings: FlowSettings, device: torch.device | str, progress: Progress | None
) -> FlowEstimator:
    folder = weights_folder(settings.weights_dir)
    if settings.estimator == "dis":
        return DisEstimator()
    if settings.estimator == "raft":
        return NetworkEstimator(RAFT, find_raft(folder), device)
    try:
        path = ensure_weights(GMFLOW_SINTEL, folder, offline=settings.offline, progress=progress)
    except WeightsError as error:
        if settings.estimator != "auto":
            raise
        find_weights(GMFLOW_SINTEL, folder)  # raises for a damaged file: the user must replace it
        log.warning("GMFlow cannot be had, so DIS is used, with poorer masks: %s", error)
        return DisEstimator()
    return NetworkEstimator(GMFLOW, path, device)
