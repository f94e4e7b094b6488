"""Check motion from files before the work, and use it instead of estimated optical flow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresco.digests import digest, digest_content
from fresco.errors import SettingsError
from fresco.flow.exact import write_index
from fresco.flow.files import BACKWARD, FORWARD, FlowFiles, list_flow_files, measure_flow
from fresco.masks.files import SHAPE
from fresco.options import require_paths
from fresco.run.clip import Clip
from fresco.run.context import RunContext, log_stage
from fresco.run.numbers import find_frames
from fresco.settings import FlowSettings
from fresco.video.size import scale_frame


@dataclass(frozen=True, slots=True)
class MotionInput:
    """Checked motion from files."""

    files: FlowFiles
    """The files, by frame number."""
    notes: tuple[str, ...] = ()
    """Notes for the user."""


def check_flow_files(clip: Clip, settings: FlowSettings) -> MotionInput | None:
    """Check the files that motion is read from; None if motion is estimated."""
    if settings.estimator != "files":
        return None
    require_paths(flow=settings)
    folder = Path(settings.path).expanduser()
    listed = list_flow_files(folder)
    numbers = sorted({n for paths in listed.paths.values() for n in paths})
    frames, notes = find_frames(numbers, clip, "motion")
    files = FlowFiles({
        direction: {frames[number]: path for number, path in paths.items() if number in frames}
        for direction, paths in listed.paths.items()
    })
    for direction, wanted in ((FORWARD, range(clip.first, clip.last)),
                              (BACKWARD, range(clip.first + 1, clip.last + 1))):
        _require_all(files.paths[direction], wanted, direction, folder)
        _check_sizes([files.paths[direction][number] for number in wanted], direction, clip)
    return MotionInput(files, notes)


def _require_all(
    paths: Mapping[int, Path], wanted: Sequence[int], direction: str, folder: Path
) -> None:
    for number in wanted:
        if number not in paths:
            other = "next" if direction == FORWARD else "previous"
            raise SettingsError(
                f"{folder} has no {direction} motion of frame {number} (to the {other} one); every "
                f"frame used needs it, {wanted[0]} to {wanted[-1]}."
            )


def _check_sizes(paths: Sequence[Path], direction: str, clip: Clip) -> None:
    """Check that all have the same size, and the proportions of the source."""
    size: tuple[int, int] | None = None
    wide, high = clip.info.width, clip.info.height
    for path in paths:
        found = measure_flow(path, direction)
        if size is not None and found != size:
            raise SettingsError(
                f"{path} is {found[0]}x{found[1]}, others are {size[0]}x{size[1]}; give one size."
            )
        if abs(found[0] * high / (found[1] * wide) - 1) > SHAPE:
            raise SettingsError(
                f"{path} is {found[0]}x{found[1]}, the frames are {wide}x{high}; give motion of "
                "the frames' proportions."
            )
        size = found


def use_flow_files(run: RunContext, given: MotionInput | None, *sizes: tuple[int, int]) -> None:
    """Put the files into the run's settings, in the form that the estimator opens.

    Args:
        sizes: further sizes (width, height) of frames whose motion is needed, besides the clip's.
    """
    if given is None:
        return
    run.notes += given.notes
    paths = given.files.paths
    content = digest([[direction, number, digest_content(path)]
                      for direction in sorted(paths) for number, path in sorted(
                          paths[direction].items())])
    wanted = list(dict.fromkeys([run.clip.frames.size, *sizes]))
    index = run.workspace.file("motion-files", digest(run.clip.range_key, content, wanted), ".json")
    if not index.exists():
        with log_stage("motion from files"), \
                run.progress.stage("motion files", run.clip.count) as stage:
            def read() -> Iterator[tuple[int, NDArray[np.uint8]]]:
                for number, frame in zip(run.clip.numbers, run.clip.read_source(), strict=True):
                    for size in wanted:
                        yield number, scale_frame(frame, size)
                    stage.advance()

            write_index(index, given.files, read(), content)
    flow = dataclasses.replace(run.settings.flow, path=str(index.absolute()))
    run.settings = dataclasses.replace(run.settings, flow=flow)
