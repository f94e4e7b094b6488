"""Answer questions of the page about the list of jobs."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fresco.errors import SettingsError, VideoError
from fresco.server.housekeeping import Housekeeper, Removal
from fresco.server.jobs.engine import UnknownJobError
from fresco.server.jobs.job import JobRequest
from fresco.server.service import Service
from fresco.server.videos import encode_jpeg
from fresco.video.size import scale_frame
from fresco.webui.tab.text import dump_job

CHANGING = frozenset({"rename", "move", "delete_several", "empty"})
"""Questions that change something."""

_THUMBNAIL, _QUALITY = 48, 80
"""Height of the image of a job, and quality of its JPEG."""
_MOST_THUMBNAILS = 24
_LONGEST = 90
"""Most letters of a prompt in the list."""
_MOST_DAYS = 36_500

Question = Mapping[str, Any]


class OrderAnswers:
    """Answers about names, places, thumbnails and disk space of jobs."""

    def __init__(self, service: Service) -> None:
        self._engine, self._frames = service.engine, service.frames
        self._keeper = Housekeeper(service)
        self.known: dict[str, Callable[[Question, str], Any]] = {
            "rename": lambda ask, _: dump_job(
                self._engine.rename(str(ask["job"]), str(ask["title"])[:200])),
            "move": lambda ask, _: self._engine.move(
                str(ask["job"]), str(ask.get("before") or "") or None),
            "job_thumbnails": lambda ask, _: self._thumbnails(ask),
            "space": lambda ask, _: self._space(),
            "delete_several": lambda ask, _: _dump(self._keeper.delete_jobs(
                [str(job) for job in ask["jobs"]], videos=bool(ask.get("video")))),
            "empty": lambda ask, _: _dump(self._empty(ask)),
        }

    def _thumbnails(self, question: Question) -> dict[str, str]:
        """Get small first keyframes of the jobs that have one."""
        found: dict[str, str] = {}
        for job in [str(each) for each in question["jobs"]][:_MOST_THUMBNAILS]:
            try:
                keys = self._engine.outcome(job).keys
                small = self._frames.read_small_keys(job, sorted(keys)[:1], _THUMBNAIL)
            except (UnknownJobError, VideoError):  # the job or its source was deleted meanwhile
                continue
            for image in small.values():
                found[job] = _address(image)
        return found

    def _space(self) -> dict[str, Any]:
        room = self._keeper.count_room()
        return {"jobs": room.jobs, "free": room.free, "jobs_bytes": sum(room.jobs.values()),
                "videos_bytes": sum(room.videos.values())}

    def _empty(self, question: Question) -> Removal:
        days = question.get("days")
        if not isinstance(days, int | float) or not 0 <= days <= _MOST_DAYS:
            raise SettingsError(f"The age is {days!r}; give days, 0 to {_MOST_DAYS}.")
        what = {name: bool(question.get(name)) for name in ("jobs", "videos")}
        work = self._keeper.empty if question.get("sure") else self._keeper.find_old
        return work(float(days), **what)


def shorten_prompt(request: JobRequest | None) -> str:
    """Shorten a job's prompt to its beginning."""
    text = " ".join(request.settings.sampling.prompt.split()) if request else ""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rstrip()}..."


def _dump(removal: Removal) -> dict[str, Any]:
    return {"jobs": len(removal.jobs), "videos": len(removal.videos), "size": removal.size,
            "refused": list(removal.refused.values())}


def _address(rgb: NDArray[np.uint8]) -> str:
    height, width = rgb.shape[:2]
    small = scale_frame(rgb, (max(1, round(width * _THUMBNAIL / height)), _THUMBNAIL))
    data = base64.b64encode(encode_jpeg(small, _QUALITY)).decode("ascii")
    return f"data:image/jpeg;base64,{data}"
