"""The folders of jobs on disk: one a job, read again after a restart, never deleted unasked.

    ROOT/<id>/request.json status.json outcome.json log.txt workspace/ result.mp4 ...
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fresco.errors import SettingsError, WorkspaceError
from fresco.webui.job import (
    JobRequest,
    JobStatus,
    request_as_dict,
    request_from_dict,
    status_as_dict,
    status_from_dict,
)
from fresco.webui.runner import Outcome, current_keys
from fresco.workspace import Workspace, explain, read_json, write_json

log = logging.getLogger("fresco")

_ID = re.compile(r"[0-9a-f]{16}")
_ID_BYTES = 8
_DELETED = ".deleted-"
_INCOMING = ".incoming"


def is_job_id(job: str) -> bool:
    """Whether a text has the form of a job's id; anything else never becomes a path."""
    return _ID.fullmatch(job) is not None


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job as it lies on disk."""

    request: JobRequest
    """What was asked for."""
    status: JobStatus
    """Where it stood."""
    written: int
    """When the status was written, in nanoseconds."""


class JobStore:
    """All jobs under one root. The one that holds the lock may change them."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._lock = Workspace(self.root)
        self.held = False

    def hold(self) -> bool:
        """Try to become the one who runs the jobs; False while another program does."""
        if not self.held:
            try:
                self._lock.__enter__()
            except WorkspaceError:
                if not self.root.is_dir():
                    raise
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
        """What a killed program left: jobs half deleted, files half written, unused uploads."""
        for path in (*self.root.glob(f"{_DELETED}*"), self.root / _INCOMING):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.root.glob("*/.*.json"):
            if is_job_id(path.parent.name):
                with contextlib.suppress(OSError):
                    path.unlink()

    def folder(self, job: str) -> Path:
        """The folder of a job."""
        return self.root / job

    def create(self) -> str:
        """A fresh folder; its name is the job's id."""
        while True:
            job = secrets.token_hex(_ID_BYTES)
            try:
                self.folder(job).mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise explain(error, self.folder(job)) from error
            return job

    def new_folder(self) -> Path:
        """A fresh folder for files of a job to come, see `adopted`."""
        path = self.root / _INCOMING / secrets.token_hex(_ID_BYTES)
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise explain(error, path) from error
        return path

    def adopted(self, job: str, path: str) -> str:
        """Move a folder of `new_folder` into the job's own; any other path stays as it is."""
        place = Path(path)
        if not path or place.parent != self.root / _INCOMING:
            return path
        target = self.folder(job) / f"own-{place.name}"
        try:
            place.replace(target)
        except OSError as error:
            raise explain(error, target) from error
        return str(target)

    def load(self) -> dict[str, StoredJob]:
        """Every job that can be read; the others are named in the log and left alone."""
        jobs: dict[str, StoredJob] = {}
        if not self.root.is_dir():
            return jobs
        for folder in sorted(self.root.iterdir()):
            if not is_job_id(folder.name) or not folder.is_dir():
                continue
            try:
                jobs[folder.name] = self._read(folder)
            except (SettingsError, OSError) as error:
                log.warning("The job in %s is not listed: %s It was left as it is.", folder, error)
        return jobs

    def _read(self, folder: Path) -> StoredJob:
        written = (folder / "status.json").stat().st_mtime_ns
        request = request_from_dict(_mapping(folder / "request.json"))
        status = status_from_dict(_mapping(folder / "status.json"))
        if status.id != folder.name:
            raise SettingsError(f"its status is that of job {status.id}; was it copied?")
        return StoredJob(request, status, written)

    def write_request(self, job: str, request: JobRequest) -> None:
        """Replace the request of a job."""
        write_json(self.folder(job) / "request.json", request_as_dict(request))

    def write_status(self, status: JobStatus) -> None:
        """Replace the status of a job."""
        write_json(self.folder(status.id) / "status.json", status_as_dict(status))

    def write_outcome(self, job: str, outcome: Outcome) -> None:
        """Keep what a run of the job made."""
        folder = self.folder(job)

        def inside(path: Path | None) -> str | None:
            return None if path is None else str(path.relative_to(folder))

        write_json(folder / "outcome.json", {
            "output": inside(outcome.output), "report": inside(outcome.report),
            "comparison": inside(outcome.comparison), "notes": list(outcome.notes),
        })

    def forget_outcome(self, job: str) -> None:
        """A new run begins: what an earlier one made is no longer the outcome."""
        path = self.folder(job) / "outcome.json"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise explain(error, path) from error

    def outcome(self, job: str) -> Outcome:
        """What the latest run made, with the keyframes there are by now."""
        folder = self.folder(job)
        known = read_json(folder / "outcome.json")
        known = known if isinstance(known, dict) else {}

        def existing(name: str) -> Path | None:
            path = folder / known[name] if known.get(name) else None
            return path if path is not None and path.exists() else None

        return Outcome(
            existing("output"), current_keys(folder), existing("report"), existing("comparison"),
            tuple(known.get("notes", ())),
        )

    def delete(self, job: str) -> None:
        """Remove the folder of a job, and nothing else."""
        path = self.folder(job)
        doomed = self.root / f"{_DELETED}{job}"
        try:
            # Renamed first: a deletion that is interrupted never leaves half a job in the list.
            path.rename(doomed)
            shutil.rmtree(doomed)
        except OSError as error:
            raise WorkspaceError(
                f"{path} cannot be removed whole: {error.strerror or error}. Close what uses its "
                "files; the rest is removed at the next start."
            ) from error


def _mapping(path: Path) -> Mapping[str, Any]:
    known = read_json(path)
    if not isinstance(known, dict):
        raise SettingsError(f"{path.name} is absent or damaged.")
    return known
