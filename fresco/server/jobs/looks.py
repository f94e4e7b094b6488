"""Draw previews of the running job, not too often, however many clients ask for them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fresco.progress import Progress

log = logging.getLogger("fresco")

_PAUSE = 2.0
"""Shortest time in seconds between two previews."""


class Looks:
    """Keeps the latest preview for all clients."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._drawn: tuple[Progress, float, NDArray[np.uint8] | None] | None = None

    def take(self, progress: Progress) -> NDArray[np.uint8] | None:
        """Get the preview, which may be a few seconds old. An error in it never fails the job."""
        with self._lock:
            now = self._clock()
            if self._drawn and self._drawn[0] is progress and now - self._drawn[1] < _PAUSE:
                return self._drawn[2]
            try:
                image = progress.look()
            except Exception as error:  # the model may be on its way to another device
                log.debug("The work of a job could not be drawn: %r", error)
                image = None
            self._drawn = progress, now, image
            return image
