"""The queue of jobs with its one worker.

A job is stored in a folder. If the program is killed, the folder still has the request and the
status, and the run in it can be resumed.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fresco.errors import Cancelled, FrescoError, SettingsError
from fresco.memory import is_out_of_memory
from fresco.progress import CancelToken, Progress
from fresco.server.jobs.job import (
    Goal,
    JobRequest,
    JobStatus,
    State,
    list_folders,
    list_request_notes,
    with_folders,
    with_seed,
)
from fresco.server.jobs.log import Say, open_log
from fresco.server.jobs.looks import Looks
from fresco.server.jobs.outlook import Outlook, PastJob
from fresco.server.jobs.progress import StageTracker
from fresco.server.jobs.runner import Outcome, Work, is_whole
from fresco.server.jobs.store import JobStore, StagePace
from fresco.server.jobs.table import (
    JobConflictError,
    JobTable,
    NothingToDoError,
    UnknownJobError,
)
from fresco.writing import explain

__all__ = ["JobConflictError", "JobEngine", "NothingToDoError", "UnknownJobError"]

log = logging.getLogger("fresco")

_NO_MEMORY = (
    "The memory is used up. Lower sampling.resolution, keyframes.batch_size or "
    "propagation.workers, and resume the job: what is finished is kept."
)
_PAST = 5
"""Number of latest finished jobs from which the time left of another is estimated."""
_CLOSED = "The program was closed. Resume the job: what is finished is kept."

_CARRYING = frozenset({
    "propagate", "ends", "write", "compare", "measure", "measure keyframes",
})
"""Stages that use the keyframes: a run in one of them stops if a keyframe is replaced."""


def _makes_video(request: JobRequest) -> bool:
    return request.goal in (Goal.ALL, Goal.PROPAGATION)


def _for_video(request: JobRequest) -> JobRequest:
    goal = request.goal if _makes_video(request) else Goal.ALL
    return dataclasses.replace(request, goal=goal, frame=-1, frame_seed=None)


class JobEngine:
    """Jobs under one root, one running at a time."""

    def __init__(
        self, root: Path, work: Work,
        count_frames: Callable[[JobRequest], int] = lambda request: 0,
        ended: Callable[[JobStatus, JobRequest, Path], None] = lambda status, request, folder: None,
    ) -> None:
        """
        Args:
            root: folder of the jobs' folders; a second engine on it is read-only.
            count_frames: returns the number of frames of a job; 0 if that is not known at once.
            ended: called for every job that has ended, with its folder.
        """
        self._ended = ended
        self._count_frames = count_frames
        self._store = JobStore(root)
        self._table = JobTable(self._store)
        self._work = work
        self._queue: list[str] = []
        self._renewed: dict[str, JobRequest] = {}
        """Jobs with a keyframe that was replaced since they began, and what they do next."""
        self._token: CancelToken | None = None
        self._progress: tuple[str, Progress] | None = None
        """The running job and its progress."""
        self._looks = Looks()
        self._worker: threading.Thread | None = None
        self._started = self._closing = False
        with self._table.changed:
            if not self._take_over():
                self._table.take_up()

    # Read

    @property
    def refusal(self) -> str:
        """Why this engine runs no jobs; empty if it does."""
        if self._closing:
            return "The jobs were closed with the program; start it again."
        return "" if self._store.held else self._store.refusal

    def status(self, job: str) -> JobStatus:
        """The state of a job."""
        self._take_over()
        return self._table.status(job)

    def request(self, job: str) -> JobRequest:
        """The request of a job."""
        return self._table.request(job)

    def requests(self) -> dict[str, JobRequest]:
        """The requests of all jobs, by their ids."""
        return self._table.requests()

    def jobs(self, limit: int | None = None) -> tuple[JobStatus, ...]:
        """List all jobs, newest first."""
        self._take_over()
        return tuple(self._table.statuses()[:limit])

    def wait(self, job: str, version: int, timeout: float) -> JobStatus:
        """Wait until the status is newer than `version`, for at most `timeout` seconds."""
        return self._table.wait(job, version, timeout)

    def folder(self, job: str) -> Path:
        """The folder of a job."""
        self._table.status(job)
        return self._store.folder(job)

    def outcome(self, job: str) -> Outcome:
        """The files that a job has made; the video before is kept until there is a new one."""
        self._table.status(job)
        return self._store.outcome(job)

    def stages(self, job: str) -> dict[str, StagePace]:
        """How long the stages of a job took."""
        self._table.status(job)
        return self._store.stages(job)

    def log(self, job: str) -> str:
        """What was logged while the job ran."""
        self._table.status(job)
        return self._store.read_log(job)

    def look(self, job: str) -> NDArray[np.uint8] | None:
        """Preview of the running batch of a job, RGB [H, W, 3]; None if there is none."""
        self._table.status(job)
        at_work = self._progress
        if at_work is None or at_work[0] != job:
            return None
        return self._looks.take(at_work[1])

    def unchanged(self) -> AbstractContextManager[object]:
        """Within the context, no other thread adds, changes or removes a job."""
        return self._table.changed

    # Change

    def new_folder(self) -> Path:
        """Make an empty folder for uploaded images; a job whose request names it takes it over."""
        with self._table.changed:
            self._require_held()
            return self._store.new_folder()

    def reuse_folders(self, job: str, request: JobRequest) -> JobRequest:
        """Replace uploaded folders in a request by the job's own folders with the same files.

        The uploaded folders are deleted.
        """
        with self._table.changed:
            folders, known = list_folders(request), list_folders(self._table.request(job))
            same = [
                name for name, folder in folders.items() if folder and known[name]
                and self._store.has_same_files(Path(folder), Path(known[name]))
            ]
            unused = {name: folders[name] if name in same else "" for name in folders}
            self._store.drop_incoming(unused.values())
            return with_folders(request, folders | {name: known[name] for name in same})

    def submit(self, request: JobRequest) -> JobStatus:
        """Queue a new job."""
        with self._table.changed:
            self._require_held()
            status = self._table.add(request)
            self._queue.append(status.id)
            return status

    def submit_once(
        self, request: JobRequest, *, pressed: float = 0,
        admit: Callable[[], None] = lambda: None,
    ) -> tuple[JobStatus, bool]:
        """Queue a job unless one with the same request waits or runs.

        Args:
            pressed: seconds within which a request that differs only in its random seed counts as
                the same press of a button.
            admit: called before a new job is made; raises to refuse it.

        Returns:
            The new or existing job, and whether it is new.
        """
        with self._table.changed:
            for status in self.jobs():
                if status.state.going and self._is_same(status, request, pressed):
                    self._store.drop_incoming(list_folders(request).values())
                    return status, False
            try:
                admit()
            except FrescoError:
                self._store.drop_incoming(list_folders(request).values())
                raise
            return self.submit(request), True

    def _is_same(self, status: JobStatus, request: JobRequest, pressed: float) -> bool:
        known = self._table.request(status.id)
        young = time.time() - status.created < pressed
        if request.random_seed and known.random_seed and young:
            request = with_seed(request, known.settings.sampling.seed)
        folders, theirs = list_folders(request), list_folders(known)
        if with_folders(request, theirs) != known:
            return False
        return all(
            folders[name] == theirs[name]
            or self._store.has_same_files(Path(folders[name]), Path(theirs[name]))
            for name in folders
        )

    def cancel(self, job: str) -> JobStatus:
        """Take a job out of the queue, or stop it at its next step."""
        with self._table.changed:
            self._require_held()
            state = self._table.status(job).state
            if state.ended:
                raise JobConflictError(
                    f"Job {job} is {state.value}, so there is nothing to cancel."
                )
            if state is State.QUEUED:
                self._queue.remove(job)
                return self._table.change(
                    job, State.CANCELLED, ended=time.time(),
                    message="Cancelled before it began. Resume it to queue it again.",
                )
            self._renewed.pop(job, None)
            if state is State.RUNNING:
                self._table.change(job, State.CANCELLING, message="Stops at the next step.")
                if self._token:
                    self._token.cancel()
            return self._table.status(job)

    def resume(self, job: str, request: JobRequest | None = None) -> JobStatus:
        """Queue an ended job again in its folder, so that unchanged files are used again.

        Args:
            request: another request, for example with another goal; None: the same again.
        """
        with self._table.changed:
            self._require_held()
            state = self._table.status(job).state
            if not state.ended:
                raise JobConflictError(f"Job {job} is {state.value}; it can be resumed once it "
                                       "has ended.")
            known = self._table.request(job)
            again = request in (None, known) and state is State.DONE
            if again and is_whole(known, self._store.folder(job), self._store.outcome(job)):
                raise NothingToDoError(
                    f"Job {job} is finished and nothing of it is changed, so there is nothing to "
                    "resume; what it made is kept. Change an option, or its goal, to make more."
                )
            status = self._table.queue_again(job, request)
            self._queue.append(job)
            return status

    def rename(self, job: str, title: str) -> JobStatus:
        """Give a job another name, in any state; if it is empty, the name of its video is used."""
        with self._table.changed:
            self._require_held()
            status = self._table.rename(job, title)
            self._keep_order()
            return status

    @property
    def queue(self) -> tuple[str, ...]:
        """The waiting jobs, in the order in which they will run."""
        with self._table.changed:
            return tuple(self._queue)

    def move(self, job: str, before: str | None) -> tuple[str, ...]:
        """Move a waiting job before another, or to the end, and return the queue."""
        with self._table.changed:
            self._require_held()
            for each in (job, *([before] if before is not None else [])):
                state = self._table.status(each).state
                if each not in self._queue:
                    raise JobConflictError(
                        f"Job {each} is {state.value}; only jobs that wait have a place in the "
                        "queue."
                    )
            if job != before:
                self._queue.remove(job)
                place = len(self._queue) if before is None else self._queue.index(before)
                self._queue.insert(place, job)
                self._keep_order()
                self._table.changed.notify_all()
            return tuple(self._queue)

    def _keep_order(self) -> None:
        self._store.keep_order(self._queue)

    def retouch(self, job: str, number: int, image: NDArray[np.uint8]) -> JobStatus:
        """Replace a keyframe of a job.

        If the job has a video, or is making one, the video is made again, but only the frames
        beside the keyframe change. The video before is kept until then.

        Args:
            number: number of an existing keyframe.
            image: image of the keyframes' size.
        """
        with self._table.changed:
            self._require_held()
            keys = self._store.outcome(job).keys
            if number not in keys:
                raise SettingsError(
                    f"Frame {number} is not among the keyframes that job {job} has: "
                    f"{', '.join(map(str, sorted(keys))) or 'none yet'}. Name one of these."
                )
            state, stage = self._table.status(job).state, self._table.status(job).stage
            before = self._renewed.get(job, self._table.request(job))
            request = self._store.retouch(job, before, number, image)
            if not (_makes_video(request) or self._store.outcome(job).output):
                return self._table.status(job)
            if state is State.QUEUED and _makes_video(before):
                self._table.amend(job, request)  # it has not begun
                return self._table.status(job)
            self._renewed[job] = _for_video(request)
            if state.ended:
                self._queue_renewed(job)
            elif state is State.RUNNING and stage in _CARRYING:
                self._table.change(job, State.CANCELLING, message="A keyframe is another now.")
                if self._token:
                    self._token.cancel()
            return self._table.status(job)

    def redo_keyframe(self, job: str, request: JobRequest) -> JobStatus:
        """Translate a keyframe of an ended job again, and make the video again if there is one."""
        with self._table.changed:
            status = self.resume(job, request)
            if self._store.outcome(job).output:
                self._renewed[job] = _for_video(request)
            return status

    def retouched(self, job: str) -> frozenset[int]:
        """The keyframes that have changed since the job's video was made."""
        self._table.status(job)
        return self._store.retouched(job)

    def _end_run(self, job: str, state: State) -> None:
        """Set the state of a job after a run; queue it again if a keyframe was replaced meanwhile.

        Also if the run failed: it may have read the keyframe while it was replaced.
        """
        request = self._table.request(job)
        if state is State.DONE and request.goal is Goal.KEYFRAME:
            self._store.note_retouched(job, request.frame)
        if state is State.DONE and _makes_video(request) and job not in self._renewed:
            self._store.forget_retouched(job)
        if self._closing or (state is State.FAILED and request.goal is Goal.KEYFRAME):
            self._renewed.pop(job, None)
        elif job in self._renewed:
            self._queue_renewed(job)

    def _queue_renewed(self, job: str) -> None:
        self._store.age_outcome(job)
        self._table.queue_again(job, self._renewed.pop(job))
        self._table.publish(job, to_disk=True, result=self._store.result(job))
        self._queue.append(job)

    def delete(self, job: str) -> None:
        """Delete a job that does not run, with its folder and nothing else."""
        with self._table.changed:
            self._require_held()
            state = self._table.status(job).state
            if not state.ended and state is not State.QUEUED:
                raise JobConflictError(f"Job {job} is {state.value}; cancel it first.")
            doomed = self._store.take_out(job)
            if job in self._queue:
                self._queue.remove(job)
            self._renewed.pop(job, None)
            self._table.remove(job)
        self._store.clear(doomed)

    # Running

    def start(self) -> None:
        """Start to run queued jobs; a second call does nothing."""
        with self._table.changed:
            self._started = True
            if self._take_over():
                self._begin()
            else:
                log.warning("%s Jobs are listed, but not run.", self.refusal)

    def close(self, timeout: float = 10) -> None:
        """Cancel the running job, which can be resumed, and end the worker."""
        with self._table.changed:
            self._closing = True
            if self._token:
                self._token.cancel()
            self._table.changed.notify_all()
            worker = self._worker
        if worker is None:
            self._store.release()
            return
        worker.join(timeout)
        if worker.is_alive():
            log.warning("A job did not stop within %g s; it ends at its next step.", timeout)

    def _take_over(self) -> bool:
        """Become the program that runs the jobs, unless another one does."""
        with self._table.changed:
            if self._closing or self._store.held:
                return self._store.held
            if self._store.hold():
                self._queue = self._table.take_up()
                if self._started:
                    self._begin()
            return self._store.held

    def _begin(self) -> None:
        if self._worker is None and not self._closing:
            self._worker = threading.Thread(target=self._run, name="fresco-jobs", daemon=True)
            self._worker.start()

    def _require_held(self) -> None:
        self._take_over()
        if self.refusal:
            raise JobConflictError(self.refusal)

    def _run(self) -> None:
        try:
            while (job := self._next()) is not None:
                try:
                    self._run_job(job)
                except BaseException as error:  # after any error of a job, the next one runs
                    self._give_up(job, error)
        finally:
            self._store.release()

    def _give_up(self, job: str, error: BaseException) -> None:
        """Mark a job as failed after an unexpected error outside of its work."""
        log.exception("Job %s could not be brought to its end.", job)
        with self._table.changed:
            self._token = None
            try:
                if not self._table.status(job).state.ended:
                    self._table.change(
                        job, State.FAILED, ended=time.time(), seconds_left=None,
                        message=f"A fault of the program, see its log: {error!r}",
                    )
            except Exception:
                log.exception("Job %s is left as it is.", job)

    def _next(self) -> str | None:
        """Wait for the next job and mark it as running; None when the engine closes."""
        with self._table.changed:
            while not self._queue and not self._closing:
                self._table.changed.wait()
            if self._closing:
                return None
            job = self._queue.pop(0)
            self._token = CancelToken()
            self._table.change(job, State.RUNNING, started=time.time(), message="Starts.")
            return job

    def _run_job(self, job: str) -> None:
        with open_log(self._store.folder(job) / "log.txt") as say:
            tracker = StageTracker(
                partial(self._table.publish, job), say, keep=partial(self._store.keep_stage, job),
                foresee=self._look_ahead(job).take,
            )
            state, changes = self._attempt(job, tracker, say)
            tracker.flush()
            say(f"{state.value}: {changes['message']}")
        with self._table.changed:
            self._token = None
            if state is State.CANCELLED and self._table.status(job).state is State.RUNNING:
                self._table.change(job, State.CANCELLING)
            told = self._table.change(job, state, ended=time.time(), seconds_left=None, **changes)
            # Before anybody can delete the job.
            request, folder = self._table.request(job), self._store.folder(job)
            self._end_run(job, state)
        if not self._closing:
            self._ended(told, request, folder)

    def _look_ahead(self, job: str) -> Outlook:
        """Make the estimate of how long a job takes."""
        with self._table.changed:  # so that none of them is deleted meanwhile
            done = [each.id for each in self._table.statuses() if each.state is State.DONE]
            past = tuple(
                PastJob(self._table.request(each), self._store.stages(each))
                for each in done[:_PAST]
            )
            request = self._table.request(job)
        return Outlook(request, past, self._count_frames(request))

    def _attempt(
        self, job: str, tracker: StageTracker, say: Say
    ) -> tuple[State, dict[str, Any]]:
        """Run a job; return the state in which it ended, and what to publish."""
        request, folder = self._table.request(job), self._store.folder(job)
        try:
            self._store.age_outcome(job)
            self._table.publish(job, to_disk=True, result=self._store.result(job))
            say(f"{request.goal.value}: begins")
            progress = Progress(tracker.report, self._token)
            self._progress = job, progress
            outcome = self._work(request, folder, progress)
            self._store.write_outcome(job, outcome)
        except Cancelled as error:
            return State.CANCELLED, {"message": _CLOSED if self._closing else str(error)}
        except FrescoError as error:
            return State.FAILED, {"message": str(error)}
        except OSError as error:
            return State.FAILED, {"message": str(explain(error, Path(error.filename or folder)))}
        except BaseException as error:  # after any error of a job, the next one runs
            if is_out_of_memory(error):
                return State.FAILED, {"message": _NO_MEMORY}
            log.exception("Job %s failed in a way that was not foreseen.", job)
            return State.FAILED, {
                "message": f"A fault of the program, see the log of the job: {error!r}"
            }
        finally:
            self._progress = None
        return State.DONE, {
            "message": "Finished.", "notes": (*list_request_notes(request), *outcome.notes),
            "result": self._store.result(job),
        }
