"""Writes several versions of one clip side by side, with their names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.errors import SettingsError, VideoError
from fresco.progress import Progress
from fresco.run.inputs import Source
from fresco.run.result import choose_sound, find_end
from fresco.video.reader import FrameSource, open_source
from fresco.video.size import scale_frame
from fresco.video.writer import VideoWriter
from fresco.writing import clear_parts

_BAR = 28
"""Height of the strip that holds the names, in pixels."""
_LARGEST_HEIGHT = 720
"""Panels are scaled down to at most this."""


def _draw_strip(label: str, width: int) -> NDArray[np.uint8]:
    """A dark strip with a name on it; [_BAR, width, 3]."""
    strip = np.full((_BAR, width, 3), 24, np.uint8)
    scale = min(0.55, 0.55 * (width - 16) / max(1, 10 * len(label)))
    cv2.putText(strip, label, (8, 19), cv2.FONT_HERSHEY_SIMPLEX, scale, (235,) * 3, 1, cv2.LINE_AA)
    return strip


def _fit_panel(source: FrameSource) -> tuple[int, int]:
    info = source.info
    scale = min(1.0, _LARGEST_HEIGHT / info.height)
    return max(2, round(info.width * scale)), max(2, round(info.height * scale))


def compare_videos(
    paths: Sequence[Path], labels: Sequence[str], output: Path, progress: Progress,
    *, first_frames: Sequence[int] | None = None, last_frame: int = -1,
    shortest: bool = False, confirm: Callable[[], None] | None = None,
) -> None:
    """Write videos side by side, with the rate and sound of the first, which may be longer.

    Args:
        first_frames: frame of each video that is shown first; None: 0 for all.
        last_frame: last frame used of the first video; a file cut off behind it is accepted.
        shortest: end with the shortest one; else all but the first must have one length, and the
            first at least that.
        confirm: raises what is wrong with the videos, before the result gets its name; None: they
            must be what they were.
    """
    if len(paths) != len(labels) or not paths:
        raise SettingsError(f"{len(paths)} videos and {len(labels)} labels; give one label each.")
    watched = [Source(path) for path in paths] if confirm is None else []

    def confirm_all() -> None:
        for each in watched:
            each.check()

    clear_parts(output)
    starts = list(first_frames or [0] * len(paths))
    with contextlib.ExitStack() as stack:
        ends = [last_frame, *(-1 for _ in paths[1:])]
        sources = [
            stack.enter_context(open_source(path, last_frame=end))
            for path, end in zip(paths, ends, strict=True)
        ]
        counts = [s.info.frames - start for s, start in zip(sources, starts, strict=True)]
        count = min(counts)
        if not shortest and count < max(counts[1:], default=0):
            raise VideoError(
                f"The videos have {', '.join(map(str, counts))} frames; compare versions of one "
                "part of a clip, which have the same number."
            )
        _write_panels(sources, starts, count, labels, output, progress, confirm or confirm_all)


def _write_panels(
    sources: Sequence[FrameSource], starts: Sequence[int], count: int, labels: Sequence[str],
    output: Path, progress: Progress, confirm: Callable[[], None],
) -> None:
    width, height = _fit_panel(sources[0])
    strips = np.concatenate([_draw_strip(label, width) for label in labels], axis=1)
    info, start = sources[0].info, starts[0]
    times = info.timestamps[start:start + count]
    streams = [s.frames(a, a + count - 1) for s, a in zip(sources, starts, strict=True)]
    writer = VideoWriter(
        output, strips.shape[1], height + _BAR, info.rate, timestamps=times,
        end=find_end(info, start + count - 1),
        pixel_aspect=info.pixel_aspect, confirm=confirm,
        **choose_sound(info, start, start + count - 1),
    )
    with progress.stage("compare", count) as stage, writer:
        for frames in zip(*streams, strict=True):
            panels = [scale_frame(frame, (width, height)) for frame in frames]
            writer.write(np.concatenate([strips, np.concatenate(panels, axis=1)], axis=0))
            stage.advance()
