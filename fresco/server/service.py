"""The service that tab and API share: the environment, the jobs, the uploaded videos."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresco.errors import SettingsError, WorkspaceError
from fresco.options import (
    list_named_paths,
    needs_alpha,
    require_paths,
    require_transparent,
)
from fresco.planning.names import TELLING, check_pattern, has_number, name_result
from fresco.server.drafts import Drafts
from fresco.server.frames import Frames, Layer, Seen
from fresco.server.hooks import Hooks, check_webhook
from fresco.server.ids import is_id
from fresco.server.images import read_image_size
from fresco.server.jobs.engine import JobConflictError, JobEngine
from fresco.server.jobs.job import MASKS, Goal, JobRequest, JobStatus, State, draw_seeds
from fresco.server.jobs.runner import check_limits, make_work
from fresco.server.jobs.segments import JobSegment, list_segments
from fresco.server.jobs.store import INCOMING
from fresco.server.ports import Environment
from fresco.server.space import NoRoomError, require_free
from fresco.server.videos import UnknownVideoError, VideoStore
from fresco.video.reader import open_source
from fresco.video.size import scale_frame

_JOBS, _VIDEOS = "jobs", "videos"


@dataclass(frozen=True, slots=True)
class Service:
    """The environment, jobs and videos that tab and API use."""

    environment: Environment
    """The program in which jobs run."""
    engine: JobEngine
    """The jobs."""
    videos: VideoStore
    """The uploaded videos."""
    root: Path
    """Folder of both."""
    drafts: Drafts
    """Draws frames beside a keyframe that is retouched."""
    page_key: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """Key with which the page identifies itself to the API. Whoever sees the page may view the jobs
    and retouch their keyframes. It is different at each start."""

    @property
    def frames(self) -> Frames:
        """Gives single frames of jobs."""
        return Frames(self.engine, self.drafts, self.environment)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of jobs and videos."""
        return self.root / _JOBS, self.root / _VIDEOS

    def submit(self, request: JobRequest) -> JobStatus:
        """Do the same as `submit_once`, but return only the status."""
        return self.submit_once(request)[0]

    def submit_once(self, request: JobRequest, *, pressed: float = 0) -> tuple[JobStatus, bool]:
        """Check a request, fill in its empty options, and queue it.

        If the same job already waits or runs, that one is returned: see `JobEngine.submit_once`.
        """
        request = self.complete(request)
        with self.engine.unchanged():
            self._require_kept(request)
            return self.engine.submit_once(request, pressed=pressed, admit=self._require_room)

    def _require_room(self) -> None:
        """Raise NoRoomError if too many jobs wait, or if the disk is full."""
        limits = self.environment.limits
        waiting = sum(status.state is State.QUEUED for status in self.engine.jobs())
        if 0 < limits.waiting_jobs <= waiting:
            raise NoRoomError(
                f"{waiting} jobs wait, as many as this server lets wait. Try again when some are "
                "done, cancel some, or raise that limit in the settings of the server."
            )
        require_free(self.root, limits.free_megabytes, what="A new job")

    def retouch(self, job: str, number: int, image: NDArray[np.uint8]) -> JobStatus:
        """Replace a keyframe of a job by an image of any size; the video is made again with it.

        See `JobEngine.retouch`.
        """
        with self.engine.unchanged():
            return self.engine.retouch(job, number, self._fit(job, number, image))

    def retouch_and_look(
        self, job: str, number: int, image: NDArray[np.uint8], frame: int, layer: Layer,
        unit: int = 1,
    ) -> tuple[JobStatus, Seen | None]:
        """Do the same as `retouch`, and return a frame of the job as `Frames.look` does.

        The frame is drawn before the job begins, because the job would use all cores.
        """
        with self.engine.unchanged(), ThreadPoolExecutor(1) as beside:
            image = self._fit(job, number, image)
            segment = self._find_drafted(job, number, frame) if layer is Layer.RESULT else None
            if segment is None:
                status = self.engine.retouch(job, number, image)
                seen = self.frames.look(job, frame, layer, unit=unit)
            else:  # drawn while the keyframe is written
                request = self.engine.request(job)
                draft = beside.submit(self.drafts.draw_in, request, segment, frame, {number: image})
                status = self.engine.retouch(job, number, image)
                drawn = draft.result()
                seen = None if drawn is None else Seen(
                    self.frames.masked.lay(job, frame, drawn), draft=True)
        self.drafts.prepare(job, frame)
        return status, seen

    def _fit(self, job: str, number: int, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize an image to the size of a job's keyframe; NoRoomError if the disk is full."""
        require_free(self.root, self.environment.limits.free_megabytes, what="A keyframe")
        path = self.engine.outcome(job).keys.get(number)
        size = read_image_size(path) if path else None
        return scale_frame(image, size) if size else image

    def _find_drafted(self, job: str, number: int, frame: int) -> JobSegment | None:
        """Find the segment beside a keyframe that contains a frame, if the job has a video."""
        if self.engine.outcome(job).output is None:
            return None
        beside = (s for s in list_segments(self.engine.folder(job)) if s.touches(number))
        return next((segment for segment in beside if frame in segment.interior), None)

    def redo_keyframe(self, job: str, number: int, seed: int) -> JobStatus:
        """Translate a keyframe of a job again; if there is a video, make it again, too.

        Args:
            seed: seed of this keyframe; -1: a random one.
        """
        changed = dataclasses.replace(
            self.engine.request(job), goal=Goal.KEYFRAME, frame=number, frame_seed=seed
        )
        status, request = self.engine.status(job), self.complete(changed)
        if status.state.going and self.engine.request(job) == request:
            return status
        with self.engine.unchanged():
            self._require_room()
            return self.engine.redo_keyframe(job, request)

    def resume(self, job: str, request: JobRequest | None = None) -> JobStatus:
        """Queue an ended job again, optionally changed; it is checked as in `submit`."""
        request = self._complete_again(job, request)
        with self.engine.unchanged():
            if self.engine.status(job).state.ended:
                self._require_room()
            return self.engine.resume(job, request)

    def resume_once(self, job: str, request: JobRequest | None = None) -> JobStatus:
        """Do the same as `resume`, but leave a job alone that is already queued with this request.
        """
        request = self._complete_again(job, request)
        status = self.engine.status(job)
        if status.state.going and self.engine.request(job) == request:
            return status
        return self.resume(job, request)

    def _complete_again(self, job: str, request: JobRequest | None) -> JobRequest:
        """Complete the request that a job is resumed with; None: its own."""
        request = self.complete(request or self.engine.request(job))
        return self.engine.reuse_folders(job, request)

    def delete_job(self, job: str, *, video: bool = False) -> str:
        """Delete a job that does not run, with its files.

        Args:
            video: also delete the uploaded video, if no other job needs it.

        Returns:
            The id of the deleted video; empty if none was deleted.
        """
        source = self.engine.request(job).source
        self.engine.delete(job)
        identity = self.videos.find_id(source) if video else ""
        with self.engine.unchanged():
            if not identity or self.count_jobs().get(identity):
                return ""
            with contextlib.suppress(UnknownVideoError):
                self.videos.delete(identity)
                return identity
        return ""

    def delete_video(self, video: str) -> None:
        """Delete an uploaded video that no waiting or running job needs."""
        kept = self.videos.get(video)
        with self.engine.unchanged():
            for status in self.count_jobs().get(video, ()):
                if not status.state.ended:
                    raise JobConflictError(
                        f"Video {kept.name} is needed by job {status.id} ({status.title}), which "
                        f"is {status.state}; cancel that first."
                    )
            self.videos.delete(video)

    def count_jobs(self) -> dict[str, list[JobStatus]]:
        """List the jobs of every uploaded video that has any, by its id."""
        found: dict[str, list[JobStatus]] = {}
        requests = self.engine.requests()
        for status in self.engine.jobs():
            if status.id not in requests:  # deleted meanwhile
                continue
            request = requests[status.id]
            for path in {request.source, request.settings.mask.path}:
                if identity := self.videos.find_id(path):
                    found.setdefault(identity, []).append(status)
        return found

    def name_result(self, job: str) -> str:
        """Name for saving the files of a job, without ending."""
        request = self.engine.request(job)
        sampling = request.settings.sampling
        pattern, number = request.settings.output.name or TELLING, 1
        if has_number(pattern):
            created = self.engine.status(job).created
            number += sum(status.created < created for status in self.engine.jobs())
        clip = self.name_source(request.source)
        return name_result(pattern, clip, sampling.prompt, sampling.seed, number)

    def name_source(self, source: str) -> str:
        """Name of a job's source; of an upload the name with which it was sent."""
        if identity := self.videos.find_id(source):
            with contextlib.suppress(UnknownVideoError):
                return Path(self.videos.get(identity).name).name
        return Path(source).name

    def _require_kept(self, request: JobRequest) -> None:
        """Raise UnknownVideoError if the source is an uploaded video that was just deleted."""
        for path in (request.source, request.settings.mask.path):
            if identity := self.videos.find_id(path):
                self.videos.get(identity)

    def is_sent(self, path: Path) -> bool:
        """Whether a path is a folder of masks that were sent with a job."""
        place = path.resolve()
        return place.is_relative_to((self.root / _JOBS).resolve()) and (
            place.name.startswith(f"{MASKS}-") or place.parent.name == INCOMING
        )

    def _is_upload(self, path: str) -> bool:
        """Whether a path is that of an uploaded video."""
        identity = self.videos.find_id(path)
        with contextlib.suppress(UnknownVideoError):
            return bool(identity) and str(self.videos.get(identity).path) == path
        return False

    def _open_mask(self, request: JobRequest) -> JobRequest:
        """Replace a mask that is the id of an uploaded video by the path of that video."""
        mask = request.settings.mask
        if mask.source != "files" or not is_id(mask.path):
            return request
        mask = dataclasses.replace(mask, path=str(self.videos.get(mask.path).path))
        settings = dataclasses.replace(request.settings, mask=mask)
        return dataclasses.replace(request, settings=settings)

    def complete(self, request: JobRequest) -> JobRequest:
        """Complete a request; SettingsError if this server does not accept it."""
        request = self._open_mask(request)
        require_paths(mask=request.settings.mask, flow=request.settings.flow)
        for path in list_named_paths(request.settings):
            if not self.is_sent(Path(path)) and not self._is_upload(path):
                self.environment.require_allowed(path)
        for unit in request.host.control:
            if unit.hints:
                self.environment.require_allowed(unit.hints)
                if not Path(unit.hints).expanduser().exists():
                    raise SettingsError(
                        f"control.hints is {unit.hints!r}, which does not exist on the server; "
                        "check it."
                    )
        request = draw_seeds(request)
        check_pattern(request.settings.output.name)
        check_limits(request, self.environment.limits)
        if needs_alpha(request.settings):
            last = request.settings.output.last_frame
            with open_source(request.source, last_frame=last) as source:
                require_transparent(request.settings, source=source.info.transparent)
        if request.webhook:
            check_webhook(request.webhook, self.environment.limits.webhooks)
        if request.goal is Goal.PROPAGATION:
            return request
        # Its current value, so that a resumed job is the same even if another model is loaded.
        return dataclasses.replace(request, host=self.environment.resolve(request.host))


def _count_frames(videos: VideoStore, request: JobRequest) -> int:
    """Number of frames of a job; 0 if its source would have to be read first."""
    output = request.settings.output
    last = output.last_frame
    if last < 0:
        identity = videos.find_id(request.source)
        if not identity:
            return 0
        try:
            last = videos.get(identity).info.frames - 1
        except UnknownVideoError:
            return 0
    return max(0, last - output.first_frame + 1)


def open_service(root: Path, environment: Environment, *, alone: bool = False) -> Service:
    """Open the jobs and videos in a folder, and start to run the queue.

    Args:
        alone: raise WorkspaceError if another program runs the jobs, or if the folder cannot be
            written. Otherwise the service is then read-only.
    """
    videos = VideoStore(root / _VIDEOS, lambda: environment.limits)
    engine = JobEngine(
        root / _JOBS, make_work(environment, videos.scan_folder), partial(_count_frames, videos),
        Hooks(lambda: environment.limits.webhooks),
    )
    if alone and engine.refusal:
        raise WorkspaceError(engine.refusal)
    engine.start()
    return Service(environment, engine, videos, root, Drafts(engine))
