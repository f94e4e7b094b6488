"""Draw the hint of a ControlNet unit for one frame, before a job is started."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresco.control import ControlUnit
from fresco.errors import SettingsError
from fresco.run.clip import open_clip
from fresco.run.hints import check_hints
from fresco.server.jobs.job import JobRequest
from fresco.server.jobs.runner import check_limits
from fresco.server.ports import Environment
from fresco.server.videos import read_frame
from fresco.settings import FrescoSettings
from fresco.video.size import scale_frame, working_size


def draw_hint(
    environment: Environment, source: Path, number: int, unit: ControlUnit,
    settings: FrescoSettings,
) -> NDArray[np.uint8]:
    """Draw the hint of a frame of a source, [H, W, 3] RGB, at the model's size."""
    check_limits(JobRequest(str(source), settings=settings), environment.limits)
    if unit.hints:
        environment.require_allowed(unit.hints)
        clip = open_clip(source, settings)
        if number not in clip.numbers:
            raise SettingsError(
                f"frame is {number}, outside of the frames used, {clip.first} to {clip.last}; give "
                "one of them."
            )
        (hints,), _ = check_hints(clip, [unit])
        assert hints is not None
        return hints.read([number], clip.frames.size)[0]
    frame = read_frame(source, number)
    height, width = frame.shape[:2]
    size = working_size(width, height, settings.sampling.resolution)
    return environment.draw_hint(unit, scale_frame(frame, size))
