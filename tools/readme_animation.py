"""Make the animation of the README from the demo's comparison.

`bash demo.sh`, then `python -m tools.readme_animation demo-output/comparison.mp4`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from fresco.video.reader import open_source

TARGET = Path(__file__).resolve().parents[1] / "docs" / "demo.webp"
WIDEST = 1020
"""Pixels: as wide as a README is shown."""
LARGEST = 4_000_000
"""Bytes that a page may ask of a visitor."""


def write_animation(video: Path, target: Path, *, quality: int, every: int) -> int:
    """Write every n-th frame of a video as an animated WebP that repeats; its size in bytes."""
    with open_source(video) as source:
        rate = float(source.info.rate)
        frames = [Image.fromarray(rgb) for rgb in source.frames()]
    frames = frames[::every]
    scale = min(1.0, WIDEST / frames[0].width)
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
    parser.add_argument("video", type=Path, help="comparison.mp4 of the demo")
    parser.add_argument("--quality", type=int, default=75, help="of WebP, 0 to 100")
    parser.add_argument("--every", type=int, default=2, help="take every n-th frame")
    given = parser.parse_args()
    size = write_animation(given.video, TARGET, quality=given.quality, every=given.every)
    if size > LARGEST:
        parser.error(f"{TARGET} has {size} bytes; lower --quality, or take fewer frames.")


if __name__ == "__main__":
    main()
