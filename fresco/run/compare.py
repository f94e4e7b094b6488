"""Write several versions of one clip side by side, with their names above."""

from __future__ import annotations

import contextlib
import itertools
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
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

_LEAST_BAR = 28
"""Smallest height in pixels of the strip with the names."""
_BAR_SHARE = 0.11
"""Height of that strip as a share of a panel's, so that names can be read at any size."""
_LARGEST_HEIGHT = 720
"""Largest height of a panel in pixels; larger ones are scaled down."""
_CHUNK = 16
"""Frames that are read at once where a video is shown backwards."""
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def _find_bar(height: int) -> int:
    """Height of the strip above panels of this height; it is even."""
    return max(_LEAST_BAR, 2 * round(_BAR_SHARE * height / 2))


def _draw_strip(text: str, width: int, height: int) -> NDArray[np.uint8]:
    """Draw a dark strip with a text, [height, width, 3]; a text that is too long gets smaller."""
    strip = np.full((height, width, 3), 24, np.uint8)
    margin = height // 3
    thickness = max(1, round(height / 20))
    (wide, _), _ = cv2.getTextSize(text, _FONT, 1.0, thickness)
    scale = min(height / 42, (width - 2 * margin) / max(1, wide))
    place = margin, round(0.7 * height)
    cv2.putText(strip, text, place, _FONT, scale, (235,) * 3, thickness, cv2.LINE_AA)
    return strip


def _fit_panel(sources: Sequence[FrameSource]) -> tuple[int, int]:
    """Choose (width, height) of the panels: the shape of the first video, at most its height.

    If it is scaled, both are even.
    """
    info = sources[0].info
    needed = max((each.info.height for each in sources[1:]), default=info.height)
    scale = min(1.0, _LARGEST_HEIGHT / info.height, needed / info.height)
    if scale == 1:
        return info.width, info.height
    wide, high = (max(2, 2 * round(side * scale / 2)) for side in (info.width, info.height))
    return wide, high


def spell(text: str) -> str:
    """Write the text in letters that can be drawn, without accents; empty if any letter is lost."""
    plain = unicodedata.normalize("NFKD", " ".join(text.split()))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return plain if plain.isascii() and plain.isprintable() else ""


def compare_videos(
    paths: Sequence[Path], labels: Sequence[str], output: Path, progress: Progress,
    *, first_frames: Sequence[int] | None = None, last_frame: int = -1,
    shortest: bool = False, title: str = "", repeat: int = 1,
    confirm: Callable[[], None] | None = None,
) -> None:
    """Write videos side by side, with the rate and sound of the first, which may be longer.

    Args:
        first_frames: first frame shown of each video; None: 0 for all.
        last_frame: last frame used of the first video; the file may be cut off after it.
        shortest: end with the shortest video. Otherwise all but the first must have the same
            length, and the first must be at least as long.
        title: text above all panels; left out if it has letters that cannot be drawn.
        repeat: how often the comparison is shown, every other time backwards, so that nothing
            jumps where it turns; without sound if more than once.
        confirm: called before the result gets its name; raises if something is wrong with the
            videos. None: check that they have not changed.
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
        _write_panels(
            sources, starts, count, [spell(title), *labels], output, progress,
            confirm or confirm_all, repeat,
        )


def _write_panels(
    sources: Sequence[FrameSource], starts: Sequence[int], count: int, words: Sequence[str],
    output: Path, progress: Progress, confirm: Callable[[], None], repeat: int,
) -> None:
    """Write the panels below their strips. The first text is the title; it may be empty."""
    width, height = _fit_panel(sources)
    bar = _find_bar(height)
    strips = np.concatenate([_draw_strip(text, width, bar) for text in words[1:]], axis=1)
    if words[0]:
        strips = np.concatenate([_draw_strip(words[0], strips.shape[1], bar), strips])
    info, start = sources[0].info, starts[0]
    end = find_end(info, start + count - 1)
    writer = VideoWriter(
        output, strips.shape[1], height + len(strips), info.rate,
        timestamps=_list_times([*info.timestamps[start:start + count], end], repeat),
        end=end + (repeat - 1) * (end - info.timestamps[start]),
        pixel_aspect=info.pixel_aspect, confirm=confirm,
        **(choose_sound(info, start, start + count - 1) if repeat == 1 else {}),
    )
    with progress.stage("compare", count * repeat) as stage, writer:
        for turn in range(repeat):
            read = _read_backwards if turn % 2 else _read
            streams = [read(s, a, a + count - 1) for s, a in zip(sources, starts, strict=True)]
            for frames in zip(*streams, strict=True):
                panels = [scale_frame(frame, (width, height)) for frame in frames]
                writer.write(np.concatenate([strips, np.concatenate(panels, axis=1)], axis=0))
                stage.advance()


def _list_times(times: Sequence[Fraction], repeat: int) -> list[Fraction]:
    """List when each frame is shown, if the frames are played forwards and backwards in turns.

    Args:
        times: of the frames once, and their end.
    """
    shown = [after - time for time, after in itertools.pairwise(times)]
    turns = [shown[::-1] if turn % 2 else shown for turn in range(repeat)]
    return list(itertools.accumulate(itertools.chain(*turns), initial=times[0]))[:-1]


def _read(source: FrameSource, first: int, last: int) -> Iterator[NDArray[np.uint8]]:
    return source.frames(first, last)


def _read_backwards(source: FrameSource, first: int, last: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames from last to first; some are read at a time."""
    for end in range(last, first - 1, -_CHUNK):
        yield from list(source.frames(max(first, end - _CHUNK + 1), end))[::-1]
