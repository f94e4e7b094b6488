"""Translate one keyframe again, together with its neighbours, which are not changed."""

from __future__ import annotations

from collections.abc import Sequence

from fresco.errors import HostError, OutOfMemoryError, SettingsError
from fresco.planning.keyframes import KeyframePlan
from fresco.run.batches import KeyframeRun
from fresco.workspace import frame_name, read_image, write_image


def find_neighbours(plans: Sequence[KeyframePlan], frame: int) -> tuple[int, ...]:
    """List the keyframe before, the keyframe itself, and the keyframe after, if the shot has them.

    Raises SettingsError if the frame is not a keyframe.
    """
    for plan in plans:
        if frame in plan.keyframes:
            place = plan.keyframes.index(frame)
            return plan.keyframes[max(0, place - 1):place + 2]
    known = [number for plan in plans for number in plan.keyframes]
    raise SettingsError(
        f"Frame {frame} is not a keyframe; the nearest is "
        f"{min(known, key=lambda number: abs(number - frame))}. Choose a keyframe."
    )


def redo_keyframe(
    run: KeyframeRun, plans: Sequence[KeyframePlan], frame: int, *, seed: int | None = None
) -> None:
    """Translate a keyframe again and replace its image.

    Frames made from the old image are made again by the next propagation.

    Args:
        seed: seed of this image; None: the seed in the settings.
    """
    company = find_neighbours(plans, frame)
    path = run.folder / frame_name(frame)
    if read_image(path) is None:
        raise SettingsError(
            f"Keyframe {frame} was not translated yet; translate the keyframes first."
        )
    with run.progress.stage("keyframe", 1) as stage:
        try:
            result = run.sample_guided(company, None, f"keyframe {frame}", of=frame, seed=seed)
        except OutOfMemoryError as error:
            raise HostError(
                f"The device ran out of memory with {len(company)} keyframes. Lower "
                "sampling.resolution, or switch off guidance.spatial_optimization and "
                "guidance.temporal_optimization."
            ) from error
        write_image(path, result.images[company.index(frame)])
        stage.advance()
