"""An engine to test with work that does as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fresco.progress import Progress, StageStatus
from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.job import JobRequest, JobStatus
from fresco.server.jobs.runner import Outcome, Work

NOTHING = Outcome(None, {}, None, None, ())
PATIENCE = 20


class Bench:
    """Work that does as it is told, job by job."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.begun = threading.Semaphore(0)
        self.gate = threading.Event()
        self.act: Callable[[Path], Outcome] = lambda folder: NOTHING

    def __call__(self, request: JobRequest, folder: Path, progress: Progress) -> Outcome:
        self.ran.append(request.source)
        self.begun.release()
        with progress.stage("work", 4) as stage:
            stage.advance()
            while not self.gate.wait(0.005):
                stage.check()
            stage.advance()
        return self.act(folder)

    def wait_begun(self) -> None:
        assert self.begun.acquire(timeout=PATIENCE)


def ended(engine: JobEngine, job: str, patience: float = PATIENCE) -> JobStatus:
    status = engine.status(job)
    end = time.monotonic() + patience
    while not status.state.ended:
        assert time.monotonic() < end, status
        status = engine.wait(job, status.version, 1)
    return status


def on_disk(root: Path, job: str) -> dict[str, Any]:
    return json.loads((root / job / "status.json").read_text())


def watched(work: Work, look: Callable[[Path, StageStatus], None]) -> Work:
    """The work, with a look at every word of its progress after it was reported."""

    def wrapped(request: JobRequest, folder: Path, progress: Progress) -> Outcome:
        def report(status: StageStatus) -> None:
            progress._report(status)
            look(folder, status)

        return work(request, folder, Progress(report, progress.token))

    return wrapped


def made(folder: Path) -> dict[str, bytes]:
    """Every image, carry, report and video of a job, by name."""
    suffixes = (".png", ".safetensors", ".mp4", ".json")
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in suffixes]
    # What the engine notes of a run has times in it.
    own = {"status.json", "request.json", "source.json", "outcome.json", "stages.json"}
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in files if path.name not in own
    }
