"""Routes of jobs and of their files."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse

from fresco.errors import SettingsError
from fresco.hosts.options import HostOptions
from fresco.options import validated
from fresco.planning.parsing import parse_keys
from fresco.propagation.judgement import FrameJudgement
from fresco.server.api import models
from fresco.server.api.answers import read_report
from fresco.server.api.events import Events
from fresco.server.api.files import (
    answer_file,
    answer_folder,
    encode_image,
    open_file,
    read_whole,
)
from fresco.server.api.models import ResumeBody
from fresco.server.api.pydantic_shim import list_given
from fresco.server.api.route import Answer, MissingError
from fresco.server.api.sources import limit_inline, open_video, store_keyframes, store_masks
from fresco.server.frames import Layer, Seen
from fresco.server.images import add_text, decode_sent_image, encode_png, fit_side
from fresco.server.jobs.job import Goal, JobRequest, dump_status
from fresco.server.jobs.segments import list_judged
from fresco.server.service import Service
from fresco.server.space import NoRoomError
from fresco.server.videos import encode_jpeg
from fresco.settings import FrescoSettings
from fresco.video.containers import CONTAINERS

_ANY_FRAME = 10**9
_MOST_DRAFTS = 4
"""Largest number of drafts that are drawn at once; each uses a whole core."""
_FRESH = {
    "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
    # Named, so that no middleware compresses an image once more.
    "Content-Encoding": "identity",
}
"""Headers of images that are made on demand."""
_PATIENCE = 5.0
"""Longest time in seconds that a request for a frame waits for its turn."""
_LONGEST_SIDE = 1280
"""Default of the longest side in pixels of a frame that is sent for viewing."""
_JUDGED = tuple(each.name for each in dataclasses.fields(FrameJudgement))
_LAYER: Any = Query(Layer.RESULT, description="What of the frame is looked at.")
_UNIT: Any = Query(1, ge=1, description="The ControlNet unit whose hint is looked at.")
_QUALITY = 90
"""Quality of JPEG."""


class JobRoutes:
    """Routes of jobs."""

    def __init__(self, service: Service) -> None:
        self._service, self._engine = service, service.engine
        self._events = Events(service.engine)
        self._drafting = threading.BoundedSemaphore(_MOST_DRAFTS)
        self._looking = threading.BoundedSemaphore(_MOST_DRAFTS)

    def submit(self, payload: Any) -> Response:
        """Queue a job."""
        body = models.read_body(models.JobBody, payload)
        settings, goal = models.merge_settings(body.settings), body.goal or Goal.ALL
        _refuse_unused(goal, body)
        if body.styles:
            settings = self._add_styles(settings, body.styles)
        with (
            open_video(self._service, body) as place,
            store_keyframes(self._service, body.keyframes, "") as folder,
            store_masks(self._service, body.masks, settings) as settings,
        ):
            request = JobRequest(str(place.path), title=place.title)
            status = self._service.submit(_change(request, body, goal, settings, folder))
        return Answer({**place.answer, **dump_status(status)})

    def _add_styles(self, settings: FrescoSettings, names: Sequence[str]) -> FrescoSettings:
        sampling = settings.sampling
        prompt, negative = self._service.environment.add_styles(
            names, sampling.prompt, sampling.negative_prompt
        )
        sampling = dataclasses.replace(sampling, prompt=prompt, negative_prompt=negative)
        return validated(dataclasses.replace(settings, sampling=sampling))

    def resume(self, payload: Any, job: str) -> Response:
        """Queue an ended job again, perhaps with another goal or other settings."""
        if payload is None or payload == {}:
            return Answer(dump_status(self._service.resume(job)))
        known = self._engine.request(job)
        body = models.read_body(models.ResumeBody, payload)
        settings = models.merge_settings(body.settings, known.settings)
        goal = body.goal or known.goal
        _refuse_unused(goal, body)
        with (
            store_keyframes(self._service, body.keyframes, known.own_keys) as folder,
            store_masks(self._service, body.masks, settings) as settings,
        ):
            request = _change(known, body, goal, settings, folder)
            return Answer(dump_status(self._service.resume(job, request)))

    def cancel(self, job: str) -> Response:
        """Take a job out of the queue, or stop it at its next step; what is finished is kept."""
        return Answer(dump_status(self._engine.cancel(job)))

    def delete(
        self, job: str,
        video: bool = Query(False, description="Remove its uploaded video too, if no other job "
                            "needs that."),
    ) -> Response:
        """Remove a job that does not run, and what it made."""
        removed = self._service.delete_job(job, video=video)
        told = {"video_deleted": removed or None} if video else {}
        return Answer({"id": job, "deleted": True, **told})

    def listed(
        self, limit: int | None = Query(None, ge=1, description="Most jobs that are listed.")
    ) -> Response:
        """Jobs, newest first."""
        return Answer({
            "jobs": [dump_status(status) for status in self._engine.jobs(limit)],
            "queue": list(self._engine.queue),
        })

    def status(self, job: str) -> Response:
        """The state of a job."""
        return Answer(dump_status(self._engine.status(job)))

    def video(self, job: str, request: Request) -> Response:
        """The result, whole or by ranges; a folder of images as a ZIP file."""
        output, name = self._engine.outcome(job).output, self._service.name_result(job)
        if output is not None and output.is_dir():
            return answer_folder(output, name)
        return self._file(job, output, "video", request, name)

    def source(self, job: str, request: Request) -> Response:
        """The video that the job was given, whole or by ranges; a folder of images has none."""
        path = Path(self._engine.request(job).source)
        return self._file(job, path, "source", request)

    def comparison(self, job: str, request: Request) -> Response:
        """Source, frame by frame and FRESCO side by side, if `output.compare` asked for it."""
        return self._file(job, self._engine.outcome(job).comparison, "comparison", request)

    def keyframes(
        self, job: str,
        numbers: str = Query("", max_length=10_000, description="Such as 0,11; empty: all."),
    ) -> Response:
        """Translated keyframes as base64 PNG, by rising frame number."""
        keys = self._engine.outcome(job).keys
        wanted = sorted(keys)
        if numbers.strip():
            wanted = list(parse_keys(
                models.require_numbers(numbers), _ANY_FRAME, read_files=False
            ))
        images = [encode_image(_require_file(keys.get(number), job, f"keyframe {number}"))
                  for number in wanted]
        return Answer({"id": job, "numbers": wanted, "images": images})

    def keyframe(
        self, job: str, number: int, request: Request,
        text: bool = Query(False, description="Say within the PNG which frame it is."),
        masked: bool = Query(False, description="Over the source by the job's mask, in the size of "
                             "the result."),
    ) -> Response:
        """One translated keyframe as PNG."""
        path = self._engine.outcome(job).keys.get(number)
        path = _require_file(path, job, f"keyframe {number}")
        if not (text or masked):
            return answer_file(path, request.headers, "image/png", f"{job}-{path.name}")
        seen = self._service.frames.look(job, number, Layer.KEYFRAME) if masked else None
        data = encode_png(seen.image) if seen else path.read_bytes()
        if text:
            source = json.dumps(self._service.name_source(self._engine.request(job).source))
            data = add_text(data, "FRESCO", f"FRESCO frame: {number}, FRESCO source: {source}")
        return Response(data, media_type="image/png", headers=_FRESH)

    def retouch(
        self, payload: Any, job: str, number: int, look: int | None, layer: Layer, unit: int
    ) -> Response:
        """Replace a keyframe. A job that has a video makes it again.

        Of the frames only those beside the keyframe change. The answer is the job, or the new image
        of the frame `look`.
        """
        if number not in self._engine.outcome(job).keys:
            raise MissingError(f"Job {job} has no keyframe {number}; see its keyframes.")
        if not isinstance(payload, bytes):
            body = models.read_body(models.KeyframeBody, payload)
            payload = read_whole(open_file("image", body.image, limit_inline(self._service)))
        image = decode_sent_image("image", payload)
        if look is None:
            return Answer(dump_status(self._service.retouch(job, number, image)))
        status, seen = self._service.retouch_and_look(job, number, image, look, layer, unit)
        return _answer_seen(seen, _LONGEST_SIDE) if seen else Answer(dump_status(status))

    def frame(
        self, job: str, number: int,
        layer: Layer = _LAYER, unit: int = _UNIT,
        side: int = Query(_LONGEST_SIDE, ge=1, le=8192, description="Most pixels of a side."),
    ) -> Response:
        """The current image of a frame, of the source or of a step of the run: JPEG."""
        if not self._looking.acquire(timeout=_PATIENCE):
            raise NoRoomError("Too many frames are requested at once; ask again in a second.")
        try:
            seen = self._service.frames.look(job, number, layer, unit=unit)
            if seen is None:
                raise MissingError(f"Job {job} has no {layer.value} of frame {number}.")
            return _answer_seen(seen, side)
        finally:
            self._looking.release()

    def draft(self, job: str, number: int) -> Response:
        """A draft of a frame between two existing keyframes: PNG."""
        if not self._drafting.acquire(blocking=False):
            raise NoRoomError(
                f"{_MOST_DRAFTS} drafts are drawn at the moment; ask again in a second."
            )
        try:
            image = self._service.frames.draw_draft(job, number)
        finally:
            self._drafting.release()
        if image is None:
            raise MissingError(
                f"Frame {number} does not lie between two keyframes of a shot that job {job} has."
            )
        return Response(encode_png(image), media_type="image/png", headers=_FRESH)

    def judged(self, job: str) -> Response:
        """How well each frame between keyframes was propagated."""
        found = list_judged(self._engine.folder(job))
        frames = sorted(found)
        return Answer({"id": job, "frames": frames, **{
            name: [getattr(found[frame], name) for frame in frames] for name in _JUDGED
        }})

    def preview(self, job: str) -> Response:
        """A preview of the batch that the model is sampling: JPEG; 404 if there is none."""
        image = self._engine.look(job)
        if image is None:
            raise MissingError(f"Job {job} has no preview now; see its status for its stage.")
        return Response(encode_jpeg(image, _QUALITY), media_type="image/jpeg", headers={
            "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
        })

    def report(self, job: str) -> Response:
        """Measures of the result."""
        path = _require_file(self._engine.outcome(job).report, job, "report")
        return Answer(read_report(path))

    def log(self, job: str) -> Response:
        """What was logged while the job ran."""
        return Answer({"id": job, "log": self._engine.log(job)})

    def events(self, job: str, request: Request) -> Response:
        """Server-sent events `status`, each a status as JSON, until the job ends.

        One answer lasts a minute at most; ask again with the header Last-Event-ID, as browsers do.
        """
        status, last = self._engine.status(job), request.headers.get("last-event-id", "")
        version = int(last) if last.isdecimal() and len(last) < 16 else -1
        if status.state.ended and status.version <= version:
            # By this a browser knows that it need not ask again.
            return Response(status_code=204)
        return StreamingResponse(
            self._events.stream(request, job, version), media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no",
                     # Named, so that no middleware compresses it and waits for more.
                     "Content-Encoding": "identity"},
        )

    def _file(
        self, job: str, path: Path | None, what: str, request: Request, name: str = ""
    ) -> Response:
        path = _require_file(path, job, what)
        container = CONTAINERS.get(path.suffix)
        media = container.media_type if container else "application/octet-stream"
        saved = f"{name or f'{job}-{what}'}{path.suffix}"
        return answer_file(path, request.headers, media, saved)


def _answer_seen(seen: Seen, side: int) -> Response:
    return Response(encode_jpeg(fit_side(seen.image, side), _QUALITY), media_type="image/jpeg",
                    headers={**_FRESH, "X-Fresco-Draft": "true" if seen.draft else "false"})


def _require_file(path: Path | None, job: str, what: str) -> Path:
    if path is None or not path.is_file():
        raise MissingError(
            f"Job {job} has no {what}; see its status and its goal."
        )
    return path


def _change(
    known: JobRequest, body: ResumeBody, goal: Goal, settings: FrescoSettings, own_keys: str
) -> JobRequest:
    """Apply a client's changes to a request; fields that are left out stay unchanged."""
    return dataclasses.replace(
        known, goal=goal, settings=settings, host=_change_host(known.host, body),
        own_keys=own_keys, preview=body.preview or known.preview,
        title=body.title or known.title,
        webhook=known.webhook if body.webhook is None else body.webhook,
        frame=known.frame if body.frame is None else body.frame,
        frame_seed=body.frame_seed if goal is Goal.KEYFRAME else known.frame_seed,
        random_seed=known.random_seed and settings.sampling.seed == known.settings.sampling.seed,
    )


def _change_host(known: HostOptions, body: ResumeBody) -> HostOptions:
    host = list_given(body.host) if body.host else {}
    return dataclasses.replace(
        known, control=known.control if body.controlnet is None else body.controlnet,
        **{name: value for name, value in host.items() if value},
    )


def _refuse_unused(goal: Goal, body: ResumeBody) -> None:
    """Raise SettingsError if there are external keyframes that the goal does not use."""
    if goal is not Goal.PROPAGATION and body.keyframes is not None:
        raise SettingsError(
            f"keyframes are given, but the goal is {goal}; set the goal to propagation, or leave "
            "them away (settings.keyframes.keys chooses frames by number)."
        )
