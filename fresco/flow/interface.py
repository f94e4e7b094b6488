"""Protocols of estimators of optical flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


class FlowEstimator(Protocol):
    """Estimates the motion between two images."""

    @property
    def name(self) -> str:
        """Short name, such as `dis`."""
        ...

    @property
    def fingerprint(self) -> str:
        """Everything that changes the flow: method, options, weights, library version."""
        ...

    @property
    def former_fingerprint(self) -> str:
        """The fingerprint as version 0.1 computed it, with which its results are found."""
        ...

    @property
    def device(self) -> str:
        """Device on which it works."""
        ...

    @property
    def note(self) -> str:
        """One sentence for the user: which estimator this is and what it costs."""
        ...

    def estimate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Flow of pairs of images in both directions.

        Args:
            source, target: [B, 3, H, W] RGB in 0..255.

        Returns:
            Forward (source to target) and backward flow, each [B, 2, H, W] pixels, x then y,
            on the device of the images.
        """
        ...


@runtime_checkable
class FrameEstimator(Protocol):
    """An estimator that works on arrays, without torch."""

    def estimate_frames(
        self, first: NDArray[np.uint8], second: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Flow of two frames [H, W, 3] RGB in both directions, each [H, W, 2] pixels, x then y."""
        ...
