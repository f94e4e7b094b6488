"""Routes of the server, of uploaded videos, and of the detection of keyframes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from fastapi import Response

from fresco import __version__
from fresco.options import entries
from fresco.progress import Progress
from fresco.run.embedded import is_held
from fresco.server.api import models
from fresco.server.api.answers import describe_detection, describe_video
from fresco.server.api.pydantic_shim import make_schema
from fresco.server.api.route import Answer
from fresco.server.api.sources import limit_inline, open_video
from fresco.server.hints import draw_hint
from fresco.server.images import encode_png
from fresco.server.jobs.job import JobRequest
from fresco.server.jobs.runner import check_limits
from fresco.server.restore import restore_settings
from fresco.server.service import Service
from fresco.server.videos import StoredVideo, detect


class ServerRoutes:
    """Routes for what the server offers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def version(self) -> Response:
        """Versions, and the limits of this server."""
        environment = self._service.environment
        limits = {**dataclasses.asdict(environment.limits),
                  "inline_megabytes": limit_inline(self._service)}
        return Answer({
            "version": __version__, "host": environment.name,
            "versions": dict(environment.list_versions()), "limits": limits,
        })

    def schema(self) -> Response:
        """JSON schemas of the bodies that routes take."""
        return Answer({
            "job": make_schema(models.JobBody), "resume": make_schema(models.ResumeBody),
            "keyframes": make_schema(models.DetectionBody),
            "hint": make_schema(models.HintBody),
        })

    def settings(self, path: Path, name: str) -> Response:
        """Read the settings inside a result: a video, a PNG image, or a run file."""
        found = restore_settings(path, name or "The file", self._service.environment.offer())
        host = dataclasses.asdict(found.host)
        groups: dict[str, dict[str, Any]] = {}
        for entry in entries():
            if is_held(entry) and not entry.option.instead:
                value = getattr(getattr(found.settings, entry.group), entry.name)
                groups.setdefault(entry.group, {})[entry.name] = value
        units = host.pop("control")
        return Answer({
            "settings": groups, "host": {name: text for name, text in host.items() if text},
            "controlnet": list(units), "notes": list(found.notes),
        })

    def models(self) -> Response:
        """Models, samplers and ControlNets to choose from."""
        return Answer(dataclasses.asdict(self._service.environment.offer()))


class VideoRoutes:
    """Routes of uploaded videos and of the detection of keyframes."""

    def __init__(self, service: Service) -> None:
        self._service, self._videos = service, service.videos

    def add(self, path: Path, name: str) -> Response:
        """Upload a video; the answer has its id."""
        return self._answer(self._videos.add(path, name))

    def listed(self) -> Response:
        """Uploaded videos, newest first, and their disk space."""
        jobs, kept = self._service.count_jobs(), self._videos.list_videos()
        return Answer({
            "videos": [describe_video(each, jobs.get(each.id, ())) for each in kept],
            "count": len(kept), "bytes": sum(each.size for each in kept),
        })

    def get(self, video: str) -> Response:
        """Facts about an uploaded video."""
        return self._answer(self._videos.get(video))

    def _answer(self, video: StoredVideo) -> Response:
        return Answer(describe_video(video, self._service.count_jobs().get(video.id, ())))

    def delete(self, video: str) -> Response:
        """Remove an uploaded video that no waiting or running job needs."""
        self._service.delete_video(video)
        return Answer({"id": video, "deleted": True})

    def keyframes(self, payload: Any) -> Response:
        """Detect shots and keyframes of a video, and how much it changes from frame to frame."""
        body = models.read_body(models.DetectionBody, payload)
        settings = models.merge_settings(body.settings)
        with open_video(self._service, body) as place:
            check_limits(
                JobRequest(str(place.path), settings=settings), self._service.environment.limits
            )
            folder = self._videos.scan_folder(place.path)
            found = detect(place.path, settings, folder, Progress())
        return Answer({**place.answer, **describe_detection(found)})

    def hint(self, payload: Any) -> Response:
        """The hint that a ControlNet unit gives its network for one frame: PNG."""
        body = models.read_body(models.HintBody, payload)
        settings = models.merge_settings(body.settings)
        with open_video(self._service, body) as place:
            image = draw_hint(
                self._service.environment, place.path, body.frame, body.unit, settings
            )
        return Response(encode_png(image), media_type="image/png", headers={
            "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
        })
