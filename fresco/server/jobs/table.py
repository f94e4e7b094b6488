"""All jobs with their statuses.

Statuses change only as `FOLLOWS` allows, are stored on disk, and are published to listeners.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fresco.errors import SettingsError, WorkspaceError
from fresco.server.ids import is_id
from fresco.server.jobs.job import (
    FOLLOWS,
    JobRequest,
    JobStatus,
    State,
    clean_title,
    list_request_notes,
)
from fresco.server.jobs.store import JobStore

log = logging.getLogger("fresco")

_INTERRUPTED = "The program ended while this job ran. Resume it: what is finished is kept."
_STOPPED = "The program ended while this job was being cancelled. What is finished is kept."
_RESTART = 1000
"""Versions skipped after a crash: some were published to listeners but not written to disk."""
_POLL = 0.5
"""Seconds between two reads of the jobs of another program."""


class UnknownJobError(SettingsError):
    """There is no job with this id."""


class JobConflictError(SettingsError):
    """The state of a job, or another program, does not allow what was asked for."""


@dataclass(slots=True)
class _Job:
    """A job in memory. Its status is replaced, never changed."""

    request: JobRequest
    status: JobStatus


class NothingToDoError(JobConflictError):
    """The requested result already exists."""


class JobTable:
    """The jobs under one root. Every method may be called from any thread."""

    def __init__(self, store: JobStore) -> None:
        self.changed = threading.Condition()
        """Held during changes that must not be seen half done; notified of every change."""
        self._store = store
        self._jobs: dict[str, _Job] = {}
        self._latest = 0.0

    def take_up(self) -> list[str]:
        """Read the jobs from disk; return the queued ones in order, if this program runs the jobs.

        A job that ran when the program was killed is marked as failed.
        """
        with self.changed:
            stored = self._store.load()
            self._jobs = {job: _Job(each.request, each.status) for job, each in stored.items()}
            if not self._store.held:
                return []
            for job, each in stored.items():
                self._latest = max(self._latest, each.status.created)
                state = each.status.state
                ran = not state.ended and state is not State.QUEUED
                self._store.tidy_job(job, ran=ran)
                if ran:
                    self._end_interrupted(job, each.status)
            queued = [job for job, each in stored.items() if each.status.state is State.QUEUED]
            return sorted(queued, key=lambda job: stored[job].written)

    def _end_interrupted(self, job: str, status: JobStatus) -> None:
        cancelling = status.state is State.CANCELLING
        self.change(
            job, State.CANCELLED if cancelling else State.FAILED, ended=time.time(),
            seconds_left=None, version=status.version + _RESTART,
            message=_STOPPED if cancelling else _INTERRUPTED,
        )

    def _known(self, job: str) -> _Job:
        if not self._store.held:
            self.take_up()
        if not is_id(job) or job not in self._jobs:
            raise UnknownJobError(f"There is no job {job!r}; list the jobs to see which there are.")
        return self._jobs[job]

    def status(self, job: str) -> JobStatus:
        """The status of a job."""
        with self.changed:
            return self._known(job).status

    def request(self, job: str) -> JobRequest:
        """The request of a job."""
        with self.changed:
            return self._known(job).request

    def requests(self) -> dict[str, JobRequest]:
        """The requests of all jobs."""
        with self.changed:
            if not self._store.held:
                self.take_up()
            return {job: known.request for job, known in self._jobs.items()}

    def statuses(self) -> list[JobStatus]:
        """All jobs, newest first."""
        with self.changed:
            if not self._store.held:
                self.take_up()
            found = [job.status for job in self._jobs.values()]
        return sorted(found, key=lambda status: status.created, reverse=True)

    def wait(self, job: str, version: int, timeout: float) -> JobStatus:
        """Wait until the status is newer than `version`, for at most `timeout` seconds."""
        end = time.monotonic() + timeout
        with self.changed:
            while True:
                status = self._known(job).status
                left = end - time.monotonic()
                if status.version > version or left <= 0:
                    return status
                self.changed.wait(left if self._store.held else min(left, _POLL))

    def add(self, request: JobRequest) -> JobStatus:
        """Add a new, queued job, once it is completely stored on disk."""
        with self.changed:
            # The list is ordered by times of creation, so no two may be equal.
            self._latest = max(time.time(), self._latest + 1e-5)
            status = JobStatus(
                self._store.make_id(), State.QUEUED, _title(request), request.goal, self._latest,
                notes=list_request_notes(request), version=1,
            )
            self._jobs[status.id] = _Job(self._store.add(request, status), status)
            self.changed.notify_all()
            return status

    def remove(self, job: str) -> None:
        """Remove a job from memory."""
        with self.changed:
            del self._jobs[job]
            self.changed.notify_all()

    def queue_again(self, job: str, request: JobRequest | None) -> JobStatus:
        """Queue an ended job again, optionally with another request."""
        with self.changed:
            if request is not None:
                self._jobs[job].request = self._store.change_request(job, request)
            known = self._jobs[job].request
            return self.change(
                job, State.QUEUED, title=_title(known), goal=known.goal, stage="", done=0, total=0,
                seconds_left=None, message="", started=None, ended=None,
                notes=list_request_notes(known),
            )

    def amend(self, job: str, request: JobRequest) -> None:
        """Replace the request of a queued job, which keeps its place."""
        with self.changed:
            self._jobs[job].request = self._store.change_request(job, request)

    def rename(self, job: str, title: str) -> JobStatus:
        """Give a job another name; empty: the name of its source."""
        with self.changed:
            known = self._known(job)
            request = dataclasses.replace(known.request, title=title)
            self._jobs[job].request = self._store.change_request(job, request)
            return self._replace(job, to_disk=True, title=_title(request))

    def change(self, job: str, state: State, **changes: Any) -> JobStatus:
        """Change the state of a job; it is on disk before listeners are told."""
        with self.changed:
            before = self._jobs[job].status
            if state not in FOLLOWS[before.state]:
                raise JobConflictError(
                    f"Job {job} is {before.state.value} and cannot become {state.value}."
                )
            left = {"job_seconds_left": None} | changes
            return self._replace(job, to_disk=True, state=state, **left)

    def publish(self, job: str, *, to_disk: bool, **changes: Any) -> None:
        """Publish the progress of the running job."""
        with self.changed:
            if self._jobs[job].status.state is State.CANCELLING:
                changes.pop("message", None)  # the message that the job is being stopped stays
            self._replace(job, to_disk=to_disk, **changes)

    def _replace(self, job: str, *, to_disk: bool, **changes: Any) -> JobStatus:
        before = self._jobs[job].status
        status = dataclasses.replace(before, **{"version": before.version + 1, **changes})
        if to_disk:
            try:
                self._store.write_status(status)
            except WorkspaceError as error:
                # The job itself will fail on the full disk; listeners still get what is in memory.
                log.warning("The status of job %s was not written: %s", job, error)
        self._jobs[job].status = status
        self.changed.notify_all()
        return status


def _title(request: JobRequest) -> str:
    return request.title or clean_title(Path(request.source).name)
