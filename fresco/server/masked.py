"""Lay images of a job's frames over the source by the job's mask, as in its result."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresco.masks.edge import Share, lay_over
from fresco.run.masks import finish_mask, read_file_mask, read_stored
from fresco.server.drafts import Drafts
from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.job import JobRequest
from fresco.server.jobs.segments import find_masks
from fresco.server.videos import read_frame
from fresco.video.reader import VideoInfo, open_source
from fresco.video.size import scale_frame, scale_levels

Image = NDArray[np.uint8]
Size = tuple[int, int]
"""Width and height."""


@dataclasses.dataclass(frozen=True, slots=True)
class Masked:
    """The masks of the jobs of one engine."""

    engine: JobEngine
    drafts: Drafts
    """Opens the sources."""

    def lay(self, job: str, number: int, image: Image) -> Image:
        """Lay the image of a frame over the source by the mask, in the size of the result.

        Outside the mask the pixels are exactly those of the source, if the result has its size, or
        black, if the result is transparent. If the job has no mask for the frame, the image is
        returned unchanged.
        """
        request = self.engine.request(job)
        if not _is_masked(request):
            return image
        info = self.drafts.open_info(request)
        own = image.shape[1], image.shape[0]
        size = (info.width, info.height) if request.settings.output.source_size else own
        share = self._find(request, info, job, number, size)
        if _is_transparent(request):
            return self._lay_over_black(request, info, number, scale_frame(image, size), share)
        if share is None:
            return image
        below = scale_frame(read_frame(Path(request.source), number), size)
        return np.asarray(lay_over(below, scale_frame(image, size), share), np.uint8)

    def lay_small(self, job: str, images: dict[int, Image]) -> dict[int, Image]:
        """Do the same for several small images, in their own size."""
        request = self.engine.request(job)
        if not images or not _is_masked(request):
            return images
        info, frames = self.drafts.open_info(request), self.drafts.open(request)
        numbers = sorted(images)
        found = dict(images)
        for number, frame in zip(numbers, frames.pick(numbers), strict=True):
            size = images[number].shape[1], images[number].shape[0]
            share = self._find(request, info, job, number, size)
            if _is_transparent(request):
                found[number] = self._lay_over_black(request, info, number, images[number], share)
            elif share is not None:
                below = scale_frame(frame, size)
                found[number] = np.asarray(lay_over(below, images[number], share), np.uint8)
        return found

    def _lay_over_black(
        self, request: JobRequest, info: VideoInfo, number: int, image: Image, share: Share | None
    ) -> Image:
        """The image as a transparent result shows it over black."""
        if info.transparent:
            frames = self.drafts.open(request)
            with open_source(
                request.source, last_frame=frames.end, index=frames.index
            ) as source:
                alpha = next(iter(source.alphas(number, number)))
            most = scale_levels(alpha, (image.shape[1], image.shape[0]))[..., None] * 255
            image = np.rint(np.minimum(image, most)).astype(np.uint8)
        if share is None:
            return image
        return np.asarray(lay_over(np.zeros_like(image), image, share), np.uint8)

    def find_plain(self, job: str, number: int) -> Share | None:
        """Get the mask of a frame without its soft edge, at working size; None if there is none."""
        request = self.engine.request(job)
        if request.settings.mask.source == "none":
            return None
        info, size = self.drafts.open_info(request), self.drafts.open(request).size
        return self._find(request, info, job, number, size, soft=False)

    def _find(
        self, request: JobRequest, info: VideoInfo, job: str, number: int, size: Size, *,
        soft: bool = True,
    ) -> Share | None:
        """Get the mask of a frame as it is applied at a size; None if it is not made yet."""
        settings, output = request.settings.mask, request.settings.output
        last = info.frames - 1 if output.last_frame < 0 else output.last_frame
        used = range(output.first_frame, last + 1)
        if number not in used:
            return None
        if settings.source == "none":
            share = None
        elif settings.source == "files":
            share = read_file_mask(settings, used, info, number, size)
        else:
            folder = find_masks(self.engine.folder(job))
            share = read_stored(folder, number, size) if folder else None
        if share is None:
            return None
        # The edge is so wide in the result.
        width = settings.feather * size[0] / info.width if output.source_size else settings.feather
        return finish_mask(share, width if soft else 0, invert=settings.invert)


def _is_masked(request: JobRequest) -> bool:
    """Whether the result of a job is more than its images."""
    return request.settings.mask.source != "none" or _is_transparent(request)


def _is_transparent(request: JobRequest) -> bool:
    return request.settings.output.background == "transparent"
