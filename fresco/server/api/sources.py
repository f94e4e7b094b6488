"""Find the files of the server that a client names: videos, external keyframes, paths."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fresco.errors import SettingsError
from fresco.server.api.files import open_file, store_images
from fresco.server.api.models import ExternalKeyframes, VideoBody
from fresco.server.service import Service
from fresco.settings import FrescoSettings

INLINE_MEGABYTES = 256
"""Largest file within JSON in megabytes; larger ones must be uploaded."""


@dataclass(frozen=True, slots=True)
class LocatedVideo:
    """Where a video is stored."""

    path: Path
    """Path on the server."""
    title: str
    """Name for users."""
    answer: Mapping[str, str] = field(default_factory=dict)
    """What the client receives: the id of the video, if it has one."""


@contextmanager
def open_video(service: Service, body: VideoBody) -> Iterator[LocatedVideo]:
    """Find the video that a client names; one sent within the request is removed on an error."""
    if body.path:
        path = require_path(service, "path", body.path)
        yield LocatedVideo(path, path.name)
    elif body.video_id:
        video = service.videos.get(body.video_id)
        yield LocatedVideo(video.path, video.name, {"video_id": video.id})
    else:
        file = open_file("video", body.video, limit_inline(service))
        video = service.videos.add(file, body.name)
        try:
            yield LocatedVideo(video.path, video.name, {"video_id": video.id})
        except BaseException:
            if not service.count_jobs().get(video.id):
                service.videos.take_back(video.id)
            raise


@contextmanager
def store_keyframes(service: Service, keys: ExternalKeyframes | None, before: str) -> Iterator[str]:
    """Find or store external keyframes; images of a request are removed on an error.

    Args:
        before: the folder where a client names none.
    """
    if keys is None:
        yield before
    elif keys.folder:
        path = require_path(service, "keyframes", keys.folder)
        if not path.is_dir():
            raise SettingsError(f"keyframes is {keys.folder!r}, which is not a folder; name one.")
        yield str(path)
    else:
        folder = service.engine.new_folder()
        try:
            store_images(keys, folder, limit_inline(service))
            yield str(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


@contextmanager
def store_masks(
    service: Service, masks: ExternalKeyframes | None, settings: FrescoSettings
) -> Iterator[FrescoSettings]:
    """Store the masks that were sent within a request; they are removed on an error."""
    if masks is None:
        yield settings
        return
    folder = service.engine.new_folder()
    try:
        store_images(masks, folder, limit_inline(service), "masks")
        source = "files" if settings.mask.source == "files" else "drawing"
        mask = dataclasses.replace(settings.mask, source=source, path=str(folder))
        yield dataclasses.replace(settings, mask=mask)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def limit_inline(service: Service) -> int:
    """Largest number of bytes of a file within JSON."""
    return min(INLINE_MEGABYTES, service.environment.limits.upload_megabytes)


def require_path(service: Service, name: str, text: str) -> Path:
    """Return a file or folder of the server, if this client may name it."""
    # Checked first, so that a client without permission does not learn whether a path exists.
    service.environment.require_allowed(text)
    path = Path(text)
    try:
        there = path.is_file() or path.is_dir()
    except (OSError, ValueError):  # longer than a path can be
        there = False
    if not there:
        raise SettingsError(
            f"{name} is {text!r}, which is not a file or folder of the server; check it, or upload "
            "the video."
        )
    return path.absolute()
