"""An engine to test with work that does as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fresco.progress import Progress
from fresco.webui.job import JobRequest, JobStatus
from fresco.webui.jobs import JobEngine
from fresco.webui.runner import Outcome

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


def ended(engine: JobEngine, job: str) -> JobStatus:
    status = engine.status(job)
    end = time.monotonic() + PATIENCE
    while not status.state.ended:
        assert time.monotonic() < end, status
        status = engine.wait(job, status.version, 1)
    return status


def on_disk(root: Path, job: str) -> dict[str, Any]:
    return json.loads((root / job / "status.json").read_text())
