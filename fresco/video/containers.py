"""Kinds of video files that can be written, by the ending of the name."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

_APPLE = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "alac"})


@dataclass(frozen=True, slots=True)
class Container:
    """A kind of video file."""

    format: str
    """FFmpeg's name."""
    media_type: str
    """Its name in HTTP."""
    codec: str = "h264"
    """The usual codec, a name of `codecs.CODECS`."""
    has_sound: bool = True
    """Whether it can hold sound; one that cannot is never without a frame."""
    copied: frozenset[str] | None = frozenset()
    """Codecs of sound that are copied as they are, because common players play them; None: all."""
    holds_pcm: bool = False
    """Whether it can hold sound that is not compressed."""
    keeps_comment: bool = True
    """Whether it can hold a comment."""
    tick: Fraction | None = None
    """Seconds to which every stored time is rounded; None: times are stored exactly."""
    by_pages: bool = False
    """Whether it is read back page by page, as an animated image."""


CONTAINERS = {
    ".mp4": Container("mp4", "video/mp4", copied=_APPLE | {"opus", "flac"}),
    ".m4v": Container("mp4", "video/mp4", copied=_APPLE),
    ".mov": Container("mov", "video/quicktime", copied=_APPLE, holds_pcm=True),
    ".mkv": Container(
        "matroska", "video/x-matroska", copied=None, holds_pcm=True, tick=Fraction(1, 1000)
    ),
    ".webm": Container(
        "webm", "video/webm", "vp9", copied=frozenset({"opus", "vorbis"}), tick=Fraction(1, 1000)
    ),
    ".gif": Container("gif", "image/gif", "gif", has_sound=False, keeps_comment=False),
    ".webp": Container(
        "webp", "image/webp", "webp", has_sound=False, keeps_comment=False, by_pages=True
    ),
}
"""Containers by the ending of the file name, in lower case."""

HOLD_SETTINGS = (
    *(suffix for suffix, container in CONTAINERS.items() if container.keeps_comment), ".png"
)
"""Endings of results that hold the settings of their run."""
