"""Routes for the list of jobs: names, places in the queue, disk space, deleting several."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastapi import Response

from fresco.errors import SettingsError
from fresco.server.api import models
from fresco.server.api.route import Answer
from fresco.server.housekeeping import Housekeeper, Removal
from fresco.server.jobs.job import dump_status
from fresco.server.service import Service


class OrderRoutes:
    """Routes for the list of jobs."""

    def __init__(self, service: Service) -> None:
        self._engine, self._keeper = service.engine, Housekeeper(service)

    def rename(self, payload: Any, job: str) -> Response:
        """Give a job another name."""
        body = models.read_body(models.TitleBody, payload)
        return Answer(dump_status(self._engine.rename(job, body.title)))

    def place(self, payload: Any, job: str) -> Response:
        """Move a waiting job in the queue."""
        body = models.read_body(models.PlaceBody, payload)
        return Answer({"queue": list(self._engine.move(job, body.before or None))})

    def delete(self, payload: Any) -> Response:
        """Delete several jobs; a running one is kept, and the answer says so."""
        body = models.read_body(models.DeletionBody, payload)
        return Answer(dump_removal(self._keeper.delete_jobs(body.jobs, videos=body.video)))

    def space(self) -> Response:
        """Disk space of every job and uploaded video, and free space, in bytes."""
        room = self._keeper.count_room()
        return Answer({
            "jobs": room.jobs, "videos": room.videos, "free": room.free,
            "bytes": sum(room.jobs.values()) + sum(room.videos.values()),
        })

    def empty(self, payload: Any) -> Response:
        """Delete ended jobs and unused uploads that are older than this number of days."""
        body = models.read_body(models.EmptyingBody, payload)
        if not (body.jobs or body.videos):
            raise SettingsError("jobs and videos are both false, so there is nothing to empty.")
        work = self._keeper.find_old if body.dry_run else self._keeper.empty
        return Answer(dump_removal(work(body.days, jobs=body.jobs, videos=body.videos)))


def dump_removal(removal: Removal) -> dict[str, Any]:
    """Convert a removal for JSON."""
    values = dataclasses.asdict(removal)
    return {**values, "jobs": list(removal.jobs), "videos": list(removal.videos)}
