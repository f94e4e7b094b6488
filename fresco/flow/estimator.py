"""Create the estimator of optical flow that the settings name.

A backend is imported only if it is chosen, so processes that propagate by OpenCV need no torch.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from fresco.errors import WeightsError
from fresco.flow.dis import DisEstimator
from fresco.flow.interface import FlowEstimator
from fresco.progress import Progress
from fresco.settings import FlowSettings
from fresco.weights import GMFLOW_SINTEL, ensure_weights, find_weights, weights_folder

if TYPE_CHECKING:
    import torch

log = logging.getLogger("fresco")


def create_estimator(
    settings: FlowSettings, device: torch.device | str = "cpu", *,
    cache: Path | None = None, progress: Progress | None = None,
) -> FlowEstimator:
    """Create the estimator that the settings name, and log which one it is.

    Args:
        device: where a network runs.
        cache: folder that keeps flow and occlusion; None: nothing is kept.
        progress: hears of a download.
    """
    estimator = _choose_estimator(settings, device, progress)
    log.info("%s", estimator.note)
    if cache is None:
        return estimator
    from fresco.flow.cache import CachedEstimator

    return CachedEstimator(estimator, cache)


def _choose_estimator(
    settings: FlowSettings, device: torch.device | str, progress: Progress | None
) -> FlowEstimator:
    if settings.estimator == "dis":
        return DisEstimator()
    if settings.estimator == "files":
        from fresco.flow.exact import open_exact

        return open_exact(Path(settings.path))
    folder = weights_folder(settings.weights_dir)
    from fresco.flow.network import GMFLOW, RAFT, NetworkEstimator, find_raft

    if settings.estimator == "raft":
        return NetworkEstimator(RAFT, find_raft(folder), device)
    try:
        path = ensure_weights(GMFLOW_SINTEL, folder, offline=settings.offline, progress=progress)
    except WeightsError as error:
        if settings.estimator != "auto":
            raise
        find_weights(GMFLOW_SINTEL, folder)  # raises for a damaged file: the user must replace it
        log.warning(
            "GMFlow is not available, so DIS is used, with poorer occlusion masks: %s", error
        )
        return DisEstimator()
    return NetworkEstimator(GMFLOW, path, device)
