"""All that tab and API share: the environment, the jobs, the uploaded videos."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.job import Goal, JobRequest, JobStatus
from fresco.server.jobs.runner import check_limits, make_work
from fresco.server.ports import Environment
from fresco.server.videos import VideoStore


@dataclass(frozen=True, slots=True)
class Service:
    """What tab and API work with."""

    environment: Environment
    """The program around."""
    engine: JobEngine
    """The jobs."""
    videos: VideoStore
    """The uploaded videos."""
    root: Path
    """Folder of both."""

    def submit(self, request: JobRequest) -> JobStatus:
        """Check a request against the environment, fill in what it leaves open, and queue it."""
        return self.engine.submit(self._complete(request))

    def resume(self, job: str, request: JobRequest | None = None) -> JobStatus:
        """Queue an ended job again, perhaps changed; checked as in `submit`."""
        return self.engine.resume(job, self._complete(request or self.engine.request(job)))

    def _complete(self, request: JobRequest) -> JobRequest:
        check_limits(request, self.environment.limits)
        if request.goal is Goal.PROPAGATION:
            return request
        # As it is now: a resumed job is the same job, whatever model is loaded meanwhile.
        return dataclasses.replace(request, host=self.environment.resolve(request.host))


def open_service(root: Path, environment: Environment) -> Service:
    """Open the jobs and videos under a folder, and begin to run what is queued."""
    engine = JobEngine(root / "jobs", make_work(environment))
    engine.start()
    videos = VideoStore(root / "videos", lambda: environment.limits)
    return Service(environment, engine, videos, root)
