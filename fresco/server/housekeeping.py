"""Count the disk space of jobs and uploads, and delete old ones on request.

Nothing here runs by itself: a server deletes only on request.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fresco.errors import FrescoError
from fresco.server.jobs.job import JobStatus
from fresco.server.service import Service
from fresco.workspace import find_free

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Room:
    """Used disk space in bytes."""

    jobs: dict[str, int]
    """Bytes of every job."""
    videos: dict[str, int]
    """Bytes of every uploaded video."""
    free: int | None
    """Free bytes; None if the system does not say."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What was deleted, or would be deleted."""

    jobs: tuple[str, ...]
    """Ids of jobs."""
    videos: tuple[str, ...]
    """Ids of uploaded videos."""
    size: int
    """Bytes."""
    refused: dict[str, str]
    """Why a job or video was not deleted, by its id."""


class Housekeeper:
    """Counts the files of a service, and deletes old ones."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._sizes: dict[str, tuple[int, int]] = {}
        """Version and bytes of jobs that were counted."""

    def count_room(self) -> Room:
        """The disk space of every job and video."""
        statuses = self._service.engine.jobs()
        jobs = {status.id: self._count_job(status) for status in statuses}
        self._sizes = {job: known for job, known in self._sizes.items() if job in jobs}
        videos = {video.id: _count_folder(video.path.parent)
                  for video in self._service.videos.list_videos()}
        return Room(jobs, videos, find_free(self._service.root))

    def _count_job(self, status: JobStatus) -> int:
        """Count the bytes of a job; done again only after the job has changed."""
        known = self._sizes.get(status.id)
        if known is None or known[0] != status.version:
            size = _count_folder(self._service.folders[0] / status.id)
            known = self._sizes[status.id] = status.version, size
        return known[1]

    def find_old(self, days: float, *, jobs: bool, videos: bool) -> Removal:
        """Find what is older than `days`: jobs, by their end, and uploads that no job needs.

        Args:
            jobs, videos: which of the two are wanted.
        """
        before, room = time.time() - days * _DAY, self.count_room()
        old = [status.id for status in self._service.engine.jobs()
               if jobs and status.state.ended and (status.ended or status.created) < before]
        needed = {
            video for video, needing in self._service.count_jobs().items()
            if any(status.id not in old for status in needing)
        }
        unused = [
            video.id for video in self._service.videos.list_videos()
            if videos and video.id not in needed and _changed(video.path) < before
        ]
        size = sum(room.jobs.get(job, 0) for job in old)
        size += sum(room.videos.get(video, 0) for video in unused)
        return Removal(tuple(old), tuple(unused), size, {})

    def empty(self, days: float, *, jobs: bool, videos: bool) -> Removal:
        """Delete what `find_old` finds, and return what was deleted."""
        return self.delete(self.find_old(days, jobs=jobs, videos=videos))

    def delete_jobs(self, jobs: Sequence[str], *, videos: bool = False) -> Removal:
        """Delete several jobs; running ones are not deleted.

        Args:
            videos: also delete the uploads that no other job needs.
        """
        room = self.count_room()
        gone, gone_videos, refused = [], [], {}
        for job in dict.fromkeys(jobs):
            try:
                video = self._service.delete_job(job, video=videos)
            except FrescoError as error:
                refused[job] = str(error)
                continue
            gone.append(job)
            gone_videos += [video] if video else []
        size = sum(room.jobs.get(job, 0) for job in gone)
        size += sum(room.videos.get(video, 0) for video in gone_videos)
        return Removal(tuple(gone), tuple(gone_videos), size, refused)

    def delete(self, wanted: Removal) -> Removal:
        """Delete the jobs first, then the videos, which the jobs may have needed."""
        done = self.delete_jobs(wanted.jobs)
        room, gone, refused = self.count_room(), [], dict(done.refused)
        for video in wanted.videos:
            try:
                self._service.delete_video(video)
            except FrescoError as error:
                refused[video] = str(error)
                continue
            gone.append(video)
        size = done.size + sum(room.videos.get(video, 0) for video in gone)
        return Removal(done.jobs, tuple(gone), size, refused)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")


def _count_folder(folder: Path) -> int:
    """Count the bytes of all files in a folder; files deleted meanwhile do not count."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    if entry.is_dir(follow_symlinks=False):
                        total += _count_folder(Path(entry.path))
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
                except OSError:
                    continue
    except OSError:
        return total
    return total
