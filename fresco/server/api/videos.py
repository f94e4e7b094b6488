"""Routes of what comes before a job: the server, uploaded videos, detection of keyframes."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastapi import Body, Request, Response

from fresco import __version__
from fresco.progress import Progress
from fresco.server.api import models, schema
from fresco.server.api.answers import clip_as_dict, detection_as_dict
from fresco.server.api.route import Answer
from fresco.server.api.sources import inline_megabytes, opened
from fresco.server.api.upload import FormFile
from fresco.server.jobs.engine import JobConflictError
from fresco.server.jobs.job import JobRequest
from fresco.server.jobs.runner import check_limits
from fresco.server.service import Service
from fresco.server.videos import detect


class ServerRoutes:
    """What there is."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def version(self) -> Response:
        """Versions, and the limits of this server."""
        hosting = self._service.hosting
        limits = {**dataclasses.asdict(hosting.limits),
                  "inline_megabytes": inline_megabytes(self._service)}
        return Answer({
            "version": __version__, "host": hosting.name, "versions": dict(hosting.versions()),
            "limits": limits,
        })

    def schema(self) -> Response:
        """JSON schemas of the bodies that routes take."""
        return Answer({
            "job": schema.job_schema(), "resume": schema.resume_schema(),
            "keyframes": schema.keyframes_schema(),
        })

    def models(self) -> Response:
        """Models, samplers and ControlNets to choose from."""
        return Answer(dataclasses.asdict(self._service.hosting.offer()))


class VideoRoutes:
    """Uploaded videos, and what is found out about a video before a job."""

    def __init__(self, service: Service) -> None:
        self._service, self._clips = service, service.clips

    def add(self, request: Request) -> Response:
        """Upload a video; the id in the answer names it from then on."""
        # Straight from the network to its place, up to the limit.
        file = FormFile(request)
        return Answer(clip_as_dict(self._clips.add(file, file.name)))

    def listed(self) -> Response:
        """Uploaded videos, newest first."""
        return Answer({"videos": [clip_as_dict(clip) for clip in self._clips.clips()]})

    def get(self, video: str) -> Response:
        """What is known about an uploaded video."""
        return Answer(clip_as_dict(self._clips.get(video)))

    def delete(self, video: str) -> Response:
        """Remove an uploaded video that no waiting or running job needs."""
        clip = self._clips.get(video)
        engine = self._service.engine
        for status in engine.jobs():
            if not status.state.ended and engine.request(status.id).source == str(clip.path):
                raise JobConflictError(
                    f"Video {video} is needed by job {status.id}; cancel that first."
                )
        self._clips.delete(video)
        return Answer({"id": video, "deleted": True})

    def keyframes(self, payload: dict[str, Any] = Body(...)) -> Response:  # noqa: B008
        """Detect shots and keyframes of a video, and how much it changes from frame to frame."""
        source, settings = models.parse_detection(payload)
        with opened(self._service, source) as place:
            check_limits(
                JobRequest(str(place.path), settings=settings), self._service.hosting.limits
            )
            folder = self._clips.scan_folder(place.path)
            found = detect(place.path, settings, folder, Progress())
        return Answer({**place.answer, **detection_as_dict(found)})
