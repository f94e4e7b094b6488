"""Frames outside the outermost keyframes of a shot: they follow the one keyframe there is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fresco.errors import PropagationError
from fresco.flow.interface import FlowEstimator
from fresco.flow.pairs import pair_flow
from fresco.propagation.propagate import FrameLoader
from fresco.propagation.render import warp_key
from fresco.propagation.tracks import Track, advance
from fresco.workspace import frame_name, read_image, write_image


def propagate_end(
    key: int, end: int, *, picture: Path, frames: FrameLoader, folder: Path,
    estimator: FlowEstimator, advanced: Callable[[], None],
) -> None:
    """Write the frames from a keyframe, itself left out, to the shot's end on one side of it.

    Args:
        end: last frame to write, before or behind the keyframe.
        picture: the keyframe's picture.
        folder: where the frames go; if all are there, nothing is done.
        advanced: called after every frame; raises to stop.
    """
    step = 1 if end > key else -1
    numbers = range(key + step, end + step, step)
    known = all((folder / frame_name(number)).exists() for number in numbers)
    styled = read_image(picture)
    if styled is None:
        raise PropagationError(f"{picture} cannot be read as a picture; make it again.")
    origin = before = next(frames(key, key))
    track = Track.start(*origin.shape[:2])
    for number in numbers:
        if not known:
            image = next(frames(number, number))
            pair = pair_flow(before, image, estimator)
            track = advance(track, pair.backward, pair.backward_occlusion,
                            frame=image, key=origin, estimator=estimator)
            write_image(folder / frame_name(number), warp_key(styled, track.flow))
            before = image
        advanced()
