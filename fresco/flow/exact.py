"""An estimator that reads motion from files and composes it between frames far apart.

Estimators receive images and not numbers of frames. So an index file of the run has the number of
each image, by its digest, and any process can open it.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fresco.errors import PropagationError, SettingsError
from fresco.flow.arrays import Flow, compose, find_inside, remap
from fresco.flow.files import BACKWARD, FORWARD, FileFlow, FlowFiles, read_flow
from fresco.workspace import read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
"""Raised when the same files give other motion."""
_READ = 64
"""Number of files whose motion is kept in memory, at the size of the frames."""


def digest_frame(image: NDArray[np.uint8]) -> str:
    """Digest of one frame [H, W, 3]."""
    sha = hashlib.sha256(str(image.shape).encode())
    sha.update(np.ascontiguousarray(image).data)
    return sha.hexdigest()[:32]


def write_index(
    path: Path, files: FlowFiles, frames: Iterable[tuple[int, NDArray[np.uint8]]], content: str
) -> None:
    """Write an index: which frame each image is, and which files hold its motion.

    Args:
        files: by the numbers of frames.
        frames: every frame of the clip with its number, at every size that is asked about.
        content: digest of the files.
    """
    known: dict[str, list[int]] = {}
    for number, image in frames:
        known.setdefault(digest_frame(image), []).append(number)
    write_json(path, {
        "content": content, "frames": known,
        "files": {direction: {str(number): str(place) for number, place in paths.items()}
                  for direction, paths in files.paths.items()},
    })


@dataclass(frozen=True, slots=True)
class ExactEstimator:
    """Motion from the files of an index, for images that are frames of its clip."""

    frames: Mapping[str, tuple[int, ...]]
    """Numbers of the frames that an image is, by its digest; equal frames share one."""
    files: FlowFiles
    """The files, by the numbers of frames."""
    fingerprint: str
    """See `FlowEstimator.fingerprint`."""

    name = "files"
    device = "cpu"
    note = "Flow is read from files; nothing is estimated."

    @property
    def former_fingerprint(self) -> str:
        """See `FlowEstimator.former_fingerprint`; version 0.1 had no such motion."""
        return self.fingerprint

    def estimate_frames(
        self, first: NDArray[np.uint8], second: NDArray[np.uint8]
    ) -> tuple[Flow, Flow]:
        """See `FrameEstimator.estimate_frames`; where a file says hidden, the flow is NaN."""
        start, end = self._find(first, second)
        size = first.shape[1], first.shape[0]
        return self._join(start, end, size), self._join(end, start, size)

    def estimate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `FlowEstimator.estimate`."""
        from fresco.flow.tensors import estimate_by_frames

        return estimate_by_frames(self, source, target)

    def _find(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> tuple[int, int]:
        """The numbers of two images; of equal frames, those nearest to each other."""
        found = [self.frames.get(digest_frame(image), ()) for image in (first, second)]
        if not all(found):
            raise PropagationError(
                "An image is not a frame of the clip that the motion in files belongs to; this is "
                "a fault of the program, unless the source has changed. Start again."
            )
        return min(((a, b) for a in found[0] for b in found[1]), key=lambda ab: abs(ab[0] - ab[1]))

    def _join(self, start: int, end: int, size: tuple[int, int]) -> Flow:
        """Compose the flow from one frame to another over all frames between."""
        flow = np.zeros((size[1], size[0], 2), np.float32)
        hidden = np.zeros(flow.shape[:2], bool)
        way = 1 if end > start else -1
        for number in range(start, end, way):
            step = self._read(FORWARD if way > 0 else BACKWARD, number, size)
            if step.hidden is not None:
                hidden |= remap(step.hidden.astype(np.float32), flow) >= 0.5
                hidden |= ~find_inside(flow)
            flow = compose(flow, step.flow)
        return np.where(hidden[..., None], np.float32(np.nan), flow)

    def _read(self, direction: str, number: int, size: tuple[int, int]) -> FileFlow:
        try:
            return _read_at(self.files.paths[direction][number], direction, size)
        except KeyError as error:
            raise PropagationError(
                f"There is no file with the {direction} motion of frame {number}; add it."
            ) from error


@functools.lru_cache(maxsize=_READ)
def _read_at(path: Path, direction: str, size: tuple[int, int]) -> FileFlow:
    return read_flow(path, direction).resize(size)


def open_exact(path: Path) -> ExactEstimator:
    """Open the estimator of an index that `write_index` wrote."""
    known: Any = read_json(path) if path.is_file() else None
    if not isinstance(known, dict):
        raise SettingsError(
            f"flow.estimator is files, but {path or 'flow.path'} does not say which frames its "
            "motion belongs to. Motion from files works in whole runs only; choose another here."
        )
    files = FlowFiles({
        direction: {int(number): Path(place) for number, place in paths.items()}
        for direction, paths in known["files"].items()
    })
    frames = {name: tuple(numbers) for name, numbers in known["frames"].items()}
    return ExactEstimator(frames, files, f"files {VERSION} {known['content']}")
