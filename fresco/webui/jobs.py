"""The queue of jobs: one worker, states that only change as `FOLLOWS` says, and listeners.

A job is its folder. Whatever kills the program, the folder says afterwards what was asked for and
how far it came, and the run in it goes on where it was.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fresco.errors import Cancelled, FrescoError, SettingsError, WorkspaceError
from fresco.progress import CancelToken, Progress
from fresco.webui.job import FOLLOWS, JobRequest, JobStatus, State
from fresco.webui.job_log import job_log
from fresco.webui.job_progress import StageTracker
from fresco.webui.job_store import JobStore, is_job_id
from fresco.webui.runner import Outcome, Work
from fresco.workspace import explain

log = logging.getLogger("fresco")

_INTERRUPTED = "The program ended while this job ran. Resume it: what is finished is kept."
_STOPPED = "The program ended while this job was being cancelled. What is finished is kept."
_CLOSED = "The program was closed. Resume the job: what is finished is kept."
_RESTART = 1000
"""Versions skipped after a crash: some were told to listeners and not yet to the disk."""
_POLL = 0.5
"""Seconds between looks at the jobs of another program."""


class UnknownJobError(SettingsError):
    """There is no job of that id."""


class JobConflictError(SettingsError):
    """The state of a job, or another program, does not allow what was asked for."""


@dataclass(slots=True)
class _Job:
    """A job in memory. The status is replaced, never edited."""

    request: JobRequest
    status: JobStatus


class JobEngine:
    """Jobs under one root, one running at a time."""

    def __init__(self, root: Path, work: Work) -> None:
        """
        Args:
            root: folder of the jobs' folders; whoever comes second on it only looks on.
        """
        self._store = JobStore(root)
        self._work = work
        self._changed = threading.Condition()
        self._jobs: dict[str, _Job] = {}
        self._queue: list[str] = []
        self._token: CancelToken | None = None
        self._worker: threading.Thread | None = None
        self._closing = False
        self._latest = 0.0
        with self._changed:
            self._take_up()

    # What is there

    @property
    def refusal(self) -> str:
        """Why this engine runs no jobs; empty if it does."""
        if self._closing:
            return "The job engine was closed; start the program again."
        if not self._store.held:
            return (f"Another program runs the jobs of {self._store.root}. Close it, or choose "
                    "another folder for jobs.")
        return ""

    def status(self, job: str) -> JobStatus:
        """Where a job stands."""
        with self._changed:
            return self._known(job).status

    def request(self, job: str) -> JobRequest:
        """What a job was asked to do."""
        with self._changed:
            return self._known(job).request

    def jobs(self, limit: int | None = None) -> tuple[JobStatus, ...]:
        """All jobs, newest first."""
        with self._changed:
            self._look_again()
            found = sorted(self._jobs.values(), key=lambda job: job.status.created, reverse=True)
            return tuple(job.status for job in found[:limit])

    def outcome(self, job: str) -> Outcome:
        """What a job has made by now."""
        with self._changed:
            self._known(job)
            return self._store.outcome(job)

    def folder(self, job: str) -> Path:
        """The folder of a job."""
        with self._changed:
            self._known(job)
            return self._store.folder(job)

    def log(self, job: str) -> str:
        """What was logged while the job ran."""
        path = self.folder(job) / "log.txt"
        try:
            return path.read_text("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise WorkspaceError(f"{path} cannot be read: {error.strerror or error}.") from error

    def wait(self, job: str, version: int, timeout: float) -> JobStatus:
        """The status once it is newer than `version`, or as it is after `timeout` seconds."""
        end = time.monotonic() + timeout
        with self._changed:
            while True:
                status = self._known(job).status
                left = end - time.monotonic()
                if status.version > version or left <= 0 or self._closing:
                    return status
                self._changed.wait(left if self._store.held else min(left, _POLL))

    # What may be asked for

    def new_folder(self) -> Path:
        """An empty folder for uploaded keyframes; named as `own_keys`, it becomes the job's."""
        with self._changed:
            self._require_held()
            return self._store.new_folder()

    def submit(self, request: JobRequest) -> JobStatus:
        """Queue a new job."""
        with self._changed:
            self._require_held()
            job = self._store.create()
            # Times of creation are the order of the list, so no two are equal.
            self._latest = max(time.time(), self._latest + 1e-5)
            title = request.title or Path(request.source).name
            status = JobStatus(
                job, State.QUEUED, title, request.goal, self._latest, version=1
            )
            try:
                request = self._adopt(job, request)
                self._store.write_request(job, request)
                self._store.write_status(status)
            except FrescoError:
                self._store.delete(job)
                raise
            self._jobs[job] = _Job(request, status)
            self._queue.append(job)
            self._changed.notify_all()
            return status

    def cancel(self, job: str) -> JobStatus:
        """Take a job out of the queue, or stop it at its next step."""
        with self._changed:
            self._require_held()
            state = self._known(job).status.state
            if state.ended:
                raise JobConflictError(
                    f"Job {job} is {state.value}, so there is nothing to cancel."
                )
            if state is State.QUEUED:
                self._queue.remove(job)
                return self._change(
                    job, State.CANCELLED, ended=time.time(),
                    message="Cancelled before it began. Resume it to queue it again.",
                )
            if state is State.RUNNING:
                self._change(job, State.CANCELLING, message="Stops at the next step.")
                if self._token:
                    self._token.cancel()
            return self.status(job)

    def resume(self, job: str, request: JobRequest | None = None) -> JobStatus:
        """Queue an ended job again in its folder, so that what is unchanged is reused.

        Args:
            request: what to do instead, such as another goal; None: the same again.
        """
        with self._changed:
            self._require_held()
            known = self._known(job)
            if not known.status.state.ended:
                raise JobConflictError(
                    f"Job {job} is {known.status.state.value}; cancel it before it is resumed."
                )
            if request is not None:
                request = self._adopt(job, request)
                self._store.write_request(job, request)
                known.request = request
            title = known.request.title or Path(known.request.source).name
            self._queue.append(job)
            return self._change(
                job, State.QUEUED, title=title, goal=known.request.goal, stage="", done=0, total=0,
                seconds_left=None, message="", started=None, ended=None, notes=(),
            )

    def delete(self, job: str) -> None:
        """Remove a job that does not run, with its folder and nothing else."""
        with self._changed:
            self._require_held()
            state = self._known(job).status.state
            if not state.ended and state is not State.QUEUED:
                raise JobConflictError(f"Job {job} is {state.value}; cancel it first.")
            if job in self._queue:
                self._queue.remove(job)
            del self._jobs[job]
            self._changed.notify_all()
            self._store.delete(job)

    # Running

    def start(self) -> None:
        """Begin to run what is queued; again: nothing."""
        with self._changed:
            if not self._take_up():
                log.warning("%s Jobs are listed and none is run.", self.refusal)
                return
            if self._worker is None and not self._closing:
                self._worker = threading.Thread(target=self._run, name="fresco-jobs", daemon=True)
                self._worker.start()

    def close(self, timeout: float = 10) -> None:
        """Cancel what runs, which stays resumable, and end the worker."""
        with self._changed:
            self._closing = True
            if self._token:
                self._token.cancel()
            self._changed.notify_all()
            worker = self._worker
        if worker is None:
            self._store.release()
            return
        worker.join(timeout)
        if worker.is_alive():
            log.warning("A job did not stop within %g s; it ends at its next step.", timeout)

    def _take_up(self) -> bool:
        """Read the jobs on disk, and become the one who runs them unless another does."""
        if self._store.held:
            return True
        held = self._store.hold()
        stored = self._store.load()
        self._jobs = {job: _Job(each.request, each.status) for job, each in stored.items()}
        if not held:
            return False
        for job, each in stored.items():
            status = each.status
            self._latest = max(self._latest, status.created)
            if status.state is State.QUEUED:
                self._queue.append(job)
            elif not status.state.ended:
                cancelling = status.state is State.CANCELLING
                self._change(
                    job, State.CANCELLED if cancelling else State.FAILED, ended=time.time(),
                    seconds_left=None, version=status.version + _RESTART,
                    message=_STOPPED if cancelling else _INTERRUPTED,
                )
        self._queue.sort(key=lambda job: stored[job].written)
        return True

    def _run(self) -> None:
        try:
            while (job := self._next()) is not None:
                self._run_job(job)
        finally:
            self._store.release()

    def _next(self) -> str | None:
        """The job to run, marked as running; None when the engine closes."""
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            if self._closing:
                return None
            job = self._queue.pop(0)
            self._token = CancelToken()
            self._change(job, State.RUNNING, started=time.time(), message="Starts.")
            return job

    def _run_job(self, job: str) -> None:
        token, request, folder = self._token, self.request(job), self._store.folder(job)
        tracker = StageTracker(lambda **changes: self._publish(job, **changes))
        with job_log(folder / "log.txt") as say:
            state, changes = State.FAILED, {"message": ""}
            try:
                self._store.forget_outcome(job)
                say(f"{request.goal.value}: begins")
                outcome = self._work(request, folder, Progress(tracker.report(say), token))
                self._store.write_outcome(job, outcome)
                state = State.DONE
                changes = {"message": "Finished.", "notes": outcome.notes}
            except Cancelled as error:
                state = State.CANCELLED
                changes = {"message": _CLOSED if self._closing else str(error)}
            except FrescoError as error:
                changes = {"message": str(error)}
            except OSError as error:
                changes = {"message": str(explain(error, Path(error.filename or folder)))}
            except BaseException as error:  # whatever a job does, the next one is run
                log.exception("Job %s failed in a way that was not foreseen.", job)
                changes = {"message": f"A fault of the program, see the log of the job: {error!r}"}
            say(f"{state.value}: {changes['message']}")
        self._end(job, state, changes)

    def _end(self, job: str, state: State, changes: dict[str, Any]) -> None:
        with self._changed:
            self._token = None
            if state is State.CANCELLED and self.status(job).state is State.RUNNING:
                self._change(job, State.CANCELLING)
            self._change(job, state, ended=time.time(), seconds_left=None, **changes)

    # Statuses

    def _known(self, job: str) -> _Job:
        self._look_again()
        if not is_job_id(job) or job not in self._jobs:
            raise UnknownJobError(f"There is no job {job!r}; list the jobs to see which there are.")
        return self._jobs[job]

    def _look_again(self) -> None:
        """What another program runs is on disk only."""
        if not self._store.held and not self._closing:
            stored = self._store.load()
            self._jobs = {job: _Job(each.request, each.status) for job, each in stored.items()}

    def _require_held(self) -> None:
        if not self._closing:
            self._take_up()
        if self.refusal:
            raise JobConflictError(self.refusal)

    def _adopt(self, job: str, request: JobRequest) -> JobRequest:
        return dataclasses.replace(request, own_keys=self._store.adopted(job, request.own_keys))

    def _change(self, job: str, state: State, **changes: Any) -> JobStatus:
        """A change of state: on disk before anybody hears of it."""
        status = self._jobs[job].status
        if state not in FOLLOWS[status.state]:
            raise JobConflictError(
                f"Job {job} is {status.state.value} and cannot become {state.value}."
            )
        changes = {"version": status.version + 1, **changes}
        status = dataclasses.replace(status, state=state, **changes)
        self._replace(status, to_disk=True)
        return status

    def _publish(self, job: str, *, to_disk: bool, **changes: Any) -> None:
        """Progress of the job that runs."""
        with self._changed:
            status = self._jobs[job].status
            status = dataclasses.replace(status, version=status.version + 1, **changes)
            self._replace(status, to_disk=to_disk)

    def _replace(self, status: JobStatus, *, to_disk: bool) -> None:
        if to_disk:
            try:
                self._store.write_status(status)
            except WorkspaceError as error:
                # The job itself meets the full disk; what is known in memory is still told.
                log.warning("The status of job %s was not written: %s", status.id, error)
        self._jobs[status.id].status = status
        self._changed.notify_all()
