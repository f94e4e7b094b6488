"""Make the animations of the README from the demo's videos.

`docs/make_pictures.sh` calls it after `bash demo.sh`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from fresco.video.reader import open_source

LARGEST = 4_000_000
"""Bytes that a page may ask of a visitor."""


def write_animation(
    video: Path, target: Path, *, widest: int, quality: int, every: int, most: int = 0
) -> int:
    """Write every n-th frame of a video as an animated WebP that repeats; its size in bytes.

    Args:
        most: of the video's frames, those that are used, from the first; 0: all.
    """
    with open_source(video) as source:
        rate = float(source.info.rate)
        frames = [Image.fromarray(rgb) for rgb in source.frames()]
    frames = frames[:most or None][::every]
    scale = min(1.0, widest / frames[0].width)
    size = round(frames[0].width * scale), round(frames[0].height * scale)
    frames = [frame.resize(size, Image.Resampling.LANCZOS) for frame in frames]
    frames[0].save(
        target, save_all=True, append_images=frames[1:], loop=0, quality=quality, method=6,
        duration=round(1000 * every / rate),
    )
    return target.stat().st_size


def main() -> None:
    """Read the command line and write the animation."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("video", type=Path, help="comparison.mp4 or painted.mp4 of the demo")
    parser.add_argument("target", type=Path, help="the .webp to write")
    parser.add_argument("--widest", type=int, default=1020, help="pixels; 1020: as a README is")
    parser.add_argument("--quality", type=int, default=75, help="of WebP, 0 to 100")
    parser.add_argument("--every", type=int, default=2, help="take every n-th frame")
    parser.add_argument("--frames", type=int, default=0, help="use only the first n frames")
    given = parser.parse_args()
    size = write_animation(
        given.video, given.target, widest=given.widest, quality=given.quality, every=given.every,
        most=given.frames,
    )
    if size > LARGEST:
        parser.error(f"{given.target} has {size} bytes; lower --quality, or take fewer frames.")


if __name__ == "__main__":
    main()
