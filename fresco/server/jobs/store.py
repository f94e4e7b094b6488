"""The folders of jobs on disk: one for each job, read again after a restart.

They are deleted only on request.

    ROOT/<id>/request.json status.json outcome.json stages.json log.txt workspace/ result.mp4 ...
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fresco.digests import digest_content
from fresco.errors import SettingsError, WorkspaceError
from fresco.progress import StageStatus
from fresco.run.result import EXPORTED
from fresco.server.ids import is_id, make_id
from fresco.server.jobs.job import (
    EARLIER_RESULT,
    NEW_RESULT,
    Goal,
    JobRequest,
    JobStatus,
    dump_request,
    dump_status,
    list_folders,
    load_request,
    load_status,
    with_folders,
)
from fresco.server.jobs.runner import Outcome, find_keyframes
from fresco.video.folder import FRAMES_MARK
from fresco.workspace import Workspace, frame_name, read_json, write_image, write_json
from fresco.writing import explain, is_part, write_bytes

log = logging.getLogger("fresco")

_DELETED = ".deleted-"
INCOMING = ".incoming"
"""Folder of files that were sent for jobs that are not queued yet."""
_STAGES = "stages.json"
_LOG = "log.txt"
_READY = ".retouched-"
"""Beginning of the name of a new keyframe in a job's folder, before it replaces the old one."""
_RETOUCHED = "retouched.json"
_LONGEST_LOG = 1 << 22
"""Number of bytes that are read from the end of a log."""
_MOST_UNITS = 10**9
"""Largest number of units, and of seconds, of a stage that is accepted from a file."""


_Seen = tuple[tuple[int, int, int], tuple[int, int, int]]
"""State of a job's request and status."""


@dataclass(frozen=True, slots=True)
class StagePace:
    """How long a stage took."""

    total: int
    """Units of the stage."""
    made: int
    """Units that were made by the run and not there before."""
    seconds: float
    """Seconds for the units that were made."""


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job as it is stored on disk."""

    request: JobRequest
    """Its request."""
    status: JobStatus
    """Its last status."""
    written: int
    """Time at which the status was written, in nanoseconds."""


class JobStore:
    """All jobs under one root. Only the program that holds the lock may change them."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._lock = Workspace(self.root)
        self._damaged: set[str] = set()
        self._known: dict[str, tuple[_Seen, StoredJob]] = {}
        """Jobs as they were last read, because a read-only program reads all of them repeatedly."""
        self.held = False
        """Whether this program may change the jobs."""
        self.refusal = ""
        """Why it may not."""

    def hold(self) -> bool:
        """Try to become the program that runs the jobs; False while another one does."""
        try:
            self._lock.__enter__()
        except WorkspaceError as error:
            in_use = "in use" in str(error)
            self.refusal = str(error) if not in_use else (
                f"Another program runs the jobs of {self.root}. Close it, or give this one "
                "another folder."
            )
            return False
        self.held = True
        self._tidy()
        return True

    def release(self) -> None:
        """Let another program run the jobs."""
        if self.held:
            self.held = False
            self._lock.__exit__()

    def _tidy(self) -> None:
        """Delete what a killed program left: half deleted jobs, uploads of jobs never queued."""
        for path in (*self.root.glob(f"{_DELETED}*"), self.root / INCOMING):
            shutil.rmtree(path, ignore_errors=True)

    def tidy_job(self, job: str, *, ran: bool) -> None:
        """Delete files of a job that were half written when the program was killed.

        Args:
            ran: whether the job was running; in others only request and status can be half written.
        """
        folder = self.folder(job)
        with contextlib.suppress(OSError):
            for path in folder.rglob(".*") if ran else folder.glob(".*"):
                if is_part(path) and path.is_file():
                    path.unlink()

    def folder(self, job: str) -> Path:
        """The folder of a job."""
        return self.root / job

    def make_id(self) -> str:
        """Make an id that no job has."""
        while self.folder(job := make_id()).exists():
            pass
        return job

    def add(self, request: JobRequest, status: JobStatus) -> JobRequest:
        """Store a new job, completely or not at all; return the request with its final paths."""
        job = status.id
        place = self.new_folder()
        try:
            request = self._adopted(request, job, place)
            write_json(place / "request.json", dump_request(request))
            write_json(place / "status.json", dump_status(status))
            _move(place, self.folder(job))
        except WorkspaceError:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return request

    def new_folder(self) -> Path:
        """Make a folder for files of a job that is not queued yet."""
        path = self.root / INCOMING / make_id()
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise explain(error, path) from error
        return path

    def _adopted(self, request: JobRequest, job: str, place: Path) -> JobRequest:
        """Move images from folders of `new_folder` to `place`, the job's own folder."""
        moved: dict[str, str] = {}
        for name, folder in list_folders(request).items():
            path = Path(folder)
            if folder and path.parent == self.root / INCOMING:
                _move(path, place / f"{name}-{path.name}")
                moved[name] = str(self.folder(job) / f"{name}-{path.name}")
        return with_folders(request, {**list_folders(request), **moved})

    def drop_incoming(self, folders: Iterable[str]) -> None:
        """Delete the folders that `new_folder` made and that no job took over."""
        for folder in folders:
            if folder and Path(folder).parent == self.root / INCOMING:
                shutil.rmtree(folder, ignore_errors=True)

    def has_same_files(self, keys: Path, known: Path) -> bool:
        """Whether a folder of `new_folder` has the same files as that of a job."""
        if keys.parent != self.root / INCOMING:
            return False
        try:
            return digest_content(keys) == digest_content(known)
        except OSError:  # the job's folder is the user's own, and was deleted
            return False

    def load(self) -> dict[str, StoredJob]:
        """Read all jobs; those that cannot be read are named in the log and left alone."""
        jobs: dict[str, StoredJob] = {}
        if not self.root.is_dir():
            return jobs
        for folder in sorted(self.root.iterdir()):
            if not is_id(folder.name) or not folder.is_dir():
                continue
            try:
                jobs[folder.name] = self._read(folder)
            except Exception as error:  # an unreadable job must not hide the others
                self._known.pop(folder.name, None)
                if folder.name not in self._damaged:
                    log.warning("The job in %s is not listed and left as it is: %s", folder, error)
                self._damaged.add(folder.name)
        for gone in self._known.keys() - jobs.keys():
            del self._known[gone]
        return jobs

    def _read(self, folder: Path) -> StoredJob:
        seen = _see(folder / "request.json"), _see(folder / "status.json")
        before = self._known.get(folder.name)
        if before is not None and before[0] == seen:
            return before[1]
        job = self._parse(folder, seen[1][2])
        self._known[folder.name] = seen, job
        return job

    def _parse(self, folder: Path, written: int) -> StoredJob:
        request = load_request(_mapping(folder / "request.json"))
        known = _mapping(folder / "status.json")
        status = load_status(known)
        if "result" not in known:  # written by version 0.1
            status = dataclasses.replace(status, result=self.result(folder.name))
        if status.id != folder.name:
            raise SettingsError(f"its status is that of job {status.id}; was it copied?")
        return StoredJob(request, status, written)

    def change_request(self, job: str, request: JobRequest) -> JobRequest:
        """Replace the request of a job; return the request with its final paths."""
        request = self._adopted(request, job, self.folder(job))
        write_json(self.folder(job) / "request.json", dump_request(request))
        return request

    def write_status(self, status: JobStatus) -> None:
        """Replace the status of a job."""
        write_json(self.folder(status.id) / "status.json", dump_status(status))

    def keep_order(self, jobs: Sequence[str]) -> None:
        """Keep the waiting jobs in this order after a restart.

        A restart sorts them by the times at which their statuses were written.
        """
        now = time.time_ns()
        for place, job in enumerate(jobs):
            with contextlib.suppress(OSError):
                at = now - (len(jobs) - place) * 1_000_000
                os.utime(self.folder(job) / "status.json", ns=(at, at))

    def write_outcome(self, job: str, outcome: Outcome) -> None:
        """Store what a run of the job has made; without a new video, the earlier one is kept."""
        folder = self.folder(job)
        before = self.outcome(job)
        if outcome.output is None and before.output is not None:
            outcome = dataclasses.replace(
                outcome, output=before.output, report=before.report, comparison=before.comparison,
                earlier=True,
            )

        def inside(path: Path | None) -> str | None:
            return None if path is None else str(path.relative_to(folder))

        write_json(folder / "outcome.json", {
            "output": inside(outcome.output), "report": inside(outcome.report),
            "comparison": inside(outcome.comparison), "notes": list(outcome.notes),
            "earlier": outcome.earlier,
        })

    def keep_stage(self, job: str, status: StageStatus) -> None:
        """Store how long a stage of a job took; of several runs, the one that made most counts."""
        stages = self.stages(job)
        before = stages.get(status.stage)
        if before is not None and before.made > status.made:
            return
        stages[status.stage] = StagePace(status.total, status.made, status.seconds)
        try:
            write_json(self.folder(job) / _STAGES, {
                name: dataclasses.asdict(pace) for name, pace in stages.items()
            })
        except WorkspaceError as error:
            log.warning("The pace of job %s is not known to later estimates: %s", job, error)

    def stages(self, job: str) -> dict[str, StagePace]:
        """Read how long the stages of a job took, by name; a job of version 0.1 has none."""
        known = read_json(self.folder(job) / _STAGES)
        try:
            return {
                str(name): _read_pace(each) for name, each in (known or {}).items()
            }
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            return {}  # damaged: the next stage writes it again

    def read_log(self, job: str) -> str:
        """Read what was logged while the job ran."""
        path = _find_own(self.folder(job), _LOG)
        if path is None:
            return ""
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _LONGEST_LOG))
                return file.read(_LONGEST_LOG).decode("utf-8", "replace")
        except OSError as error:
            raise WorkspaceError(f"{path} cannot be read: {error.strerror or error}.") from error

    def age_outcome(self, job: str) -> None:
        """Mark the existing results as those of an earlier run, because a new run begins."""
        path = self.folder(job) / "outcome.json"
        known = read_json(path)
        if isinstance(known, dict):
            write_json(path, {**known, "earlier": True})

    def retouch(
        self, job: str, request: JobRequest, number: int, image: NDArray[np.uint8]
    ) -> JobRequest:
        """Replace one of a job's keyframes; return the request with which the job continues."""
        keys = self.outcome(job).keys
        # Written outside the workspace: there a run that begins now would take it for one of its
        # own half-written files, and delete it.
        ready = self.folder(job) / f"{_READY}{number}.png"
        write_image(ready, image)
        try:
            ready.replace(keys[number])
        except OSError as error:
            raise explain(error, keys[number]) from error
        if request.goal is Goal.PROPAGATION:
            request = self._retouch_external(job, request, keys, number)
        self.note_retouched(job, number)
        return request

    def _retouch_external(
        self, job: str, request: JobRequest, keys: Mapping[int, Path], number: int
    ) -> JobRequest:
        """Replace an external keyframe.

        The folder of external keyframes may be the user's own. So the job gets a folder with copies
        of its keyframes, named by frame number.
        """
        own = Path(request.own_keys)
        ours = own.parent in (self.folder(job), self.root / INCOMING)
        new = {number}
        if not (ours and (own / EXPORTED).is_file()):
            own, new = self.new_folder(), set(keys)
            write_json(own / EXPORTED, {})
        for each in new:
            write_bytes(own / frame_name(each), keys[each].read_bytes())
        return dataclasses.replace(request, own_keys=str(own))

    def retouched(self, job: str) -> frozenset[int]:
        """The keyframes that were replaced or translated again since the latest video was started.
        """
        known = read_json(self.folder(job) / _RETOUCHED)
        if not isinstance(known, list) or not all(type(number) is int for number in known):
            return frozenset()
        return frozenset(known)

    def note_retouched(self, job: str, number: int) -> None:
        """Record a keyframe that differs from the one in the video."""
        write_json(self.folder(job) / _RETOUCHED, sorted({*self.retouched(job), number}))

    def forget_retouched(self, job: str) -> None:
        """Record that the video has all current keyframes."""
        with contextlib.suppress(OSError):
            (self.folder(job) / _RETOUCHED).unlink(missing_ok=True)

    def outcome(self, job: str) -> Outcome:
        """Find what the runs have made: the latest video, and the existing keyframes."""
        folder = self.folder(job)
        known = read_json(folder / "outcome.json")
        known = known if isinstance(known, dict) else {}

        output, report, comparison = (
            _find_own(folder, known.get(name)) for name in ("output", "report", "comparison")
        )
        notes = known.get("notes")
        return Outcome(
            output, find_keyframes(folder), report, comparison,
            tuple(map(str, notes)) if isinstance(notes, list) else (),
            known.get("earlier") is True,
        )

    def result(self, job: str) -> str:
        """The `result` of a status."""
        outcome = self.outcome(job)
        if outcome.output is None:
            return ""
        return EARLIER_RESULT if outcome.earlier else NEW_RESULT

    def take_out(self, job: str) -> Path:
        """Rename the folder of a job, so that it is no longer a job; return its new path."""
        path, doomed = self.folder(job), self.root / f"{_DELETED}{job}"
        try:
            path.rename(doomed)
        except OSError as error:
            raise WorkspaceError(
                f"{path} cannot be removed: {error.strerror or error}. Close what uses its files."
            ) from error
        return doomed

    def clear(self, doomed: Path) -> None:
        """Delete what `take_out` renamed; what cannot be deleted now is deleted at the next start.
        """
        try:
            shutil.rmtree(doomed)
        except OSError as error:
            log.warning("%s was not removed whole: %s", doomed, error)


def _read_pace(known: Mapping[str, Any]) -> StagePace:
    total, made, seconds = int(known["total"]), int(known["made"]), float(known["seconds"])
    if not (0 <= total <= _MOST_UNITS and 0 <= made <= _MOST_UNITS and 0 <= seconds <= _MOST_UNITS):
        raise ValueError("no such pace")
    return StagePace(total, made, seconds)


def _find_own(folder: Path, name: object) -> Path | None:
    """Find the file, or folder of images, that a job's outcome names; None if it is elsewhere."""
    if not isinstance(name, str) or not name:
        return None
    path = folder / name
    try:
        there = path.is_file() or (path / FRAMES_MARK).is_file()
        inside = there and path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # ValueError: a name with a null
        return None
    return path if inside else None


def _see(path: Path) -> tuple[int, int, int]:
    """Numbers that change when a file is replaced."""
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


def _move(path: Path, target: Path) -> None:
    try:
        path.replace(target)
    except OSError as error:
        raise explain(error, target) from error


def _mapping(path: Path) -> Mapping[str, Any]:
    known = read_json(path)
    if not isinstance(known, dict):
        raise SettingsError(f"{path.name} is absent or damaged.")
    return known
