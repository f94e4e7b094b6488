"""Kinds of video files that are written, by the ending of the name."""

from __future__ import annotations

CONTAINERS = {
    ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm",
    ".gif": "gif", ".webp": "webp",
}
"""FFmpeg's name of the container."""

KEEP_COMMENT = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
"""Those that keep a comment."""

HOLD_SETTINGS = (*KEEP_COMMENT, ".png")
"""Endings of results that hold the settings of their run."""

SILENT = (".gif", ".webp")
"""Those that have no sound."""

MEDIA_TYPES = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime",
    ".mkv": "video/x-matroska", ".webm": "video/webm", ".gif": "image/gif", ".webp": "image/webp",
}
"""What HTTP calls them."""
