"""Enlarge keyframes before they are propagated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fresco.digests import digest, digest_content
from fresco.errors import PropagationError
from fresco.planning.keyframes import KeyframePlan
from fresco.run.batches import KeyframeRun
from fresco.run.clip import Clip
from fresco.run.context import RunContext, log_stage, resize_run
from fresco.run.propagate import ORIGIN, read_origin
from fresco.run.result import ImageLookup
from fresco.settings import FrescoSettings
from fresco.video.size import carried_size, scale_frame
from fresco.workspace import frame_name, read_image, write_image, write_json


@runtime_checkable
class UpscalingHost(Protocol):
    """A host with upscalers of its own."""

    @property
    def upscaler(self) -> str:
        """Name of the chosen upscaler; empty if none."""
        ...

    def enlarge(self, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Enlarge an image [H, W, 3] to a size (width, height)."""
        ...



def choose_carried_size(clip: Clip, settings: FrescoSettings) -> tuple[int, int]:
    """Choose the width and height at which translated keyframes are propagated.

    It is at least the size of the keyframes. If the result has the source's size, it is at most
    that size.
    """
    source = clip.info.width, clip.info.height
    wanted = settings.propagation.resolution
    if settings.output.source_size:
        wanted = min(wanted, min(source))
    return carried_size(*source, wanted) if wanted > min(clip.frames.size) else clip.frames.size


def enlarge_keyframes(
    run: RunContext, plans: Sequence[KeyframePlan], keys: KeyframeRun
) -> tuple[RunContext, Path]:
    """Enlarge keyframes to the size of propagation; one that has not changed is used again.

    Returns:
        The run at that size, and the folder of the enlarged keyframes.
    """
    size = choose_carried_size(run.clip, run.settings)
    if size == run.clip.frames.size:
        return run, keys.folder
    host = keys.host
    upscaler = host.upscaler if isinstance(host, UpscalingHost) else ""
    folder = run.workspace.folder("enlarged", digest(keys.folder.name, size, upscaler))
    numbers = [number for plan in plans for number in plan.keyframes]
    now = {str(n): digest_content(keys.folder / frame_name(n)) for n in numbers}
    before = read_origin(folder) or {}
    with log_stage("enlarge"), run.progress.stage("enlarge", len(numbers)) as stage:
        for number in numbers:
            target = folder / frame_name(number)
            if before.get(str(number)) != now[str(number)] or read_image(target) is None:
                image = read_image(keys.folder / frame_name(number))
                if image is None:
                    raise PropagationError(
                        f"The image of keyframe {number} is missing or damaged. Start the same "
                        "command again: it makes what is missing."
                    )
                if isinstance(host, UpscalingHost) and upscaler:
                    image = host.enlarge(image, size)
                write_image(target, scale_frame(image, size))
            stage.advance()
    write_json(folder / ORIGIN, now)
    return resize_run(run, size), folder


def scale_images(images: ImageLookup, size: tuple[int, int]) -> ImageLookup:
    """Return a lookup of the same images at another size (width, height)."""
    def find(number: int) -> NDArray[np.uint8] | None:
        image = images(number)
        return None if image is None else scale_frame(image, size)

    return find
