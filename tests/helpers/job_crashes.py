"""An engine in a process of its own, to be killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch

from fresco.hosts.options import HostOptions
from fresco.progress import StageStatus
from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.job import State
from fresco.server.jobs.runner import make_work
from tests.helpers.job_bench import ended, watched
from tests.helpers.job_environment import TinyEnvironment, tiny_settings

MODELS = "FRESCO_TEST_MODELS"
"""Environment variable: folder of the models that a fork server loads for all its processes."""


def _loaded(folder: Path) -> TinyEnvironment:
    """Environment whose first model is in memory already."""
    environment = TinyEnvironment(folder)
    environment.open(HostOptions(), tiny_settings().sampling)
    return environment


ENVIRONMENT = _loaded(Path(os.environ[MODELS])) if MODELS in os.environ else None


def run_job(root: Path, models: Path, job: str, survived: set[str] | None, note: Path) -> None:
    """Run or resume a job to its end, or die without a word at the begin of a stage.

    Args:
        survived: stages at which it does not die; None: all.
        note: file for the stage at which it dies.
    """
    torch.set_num_threads(1)

    def die(folder: Path, status: StageStatus) -> None:
        if survived is not None and status.stage not in survived:
            note.write_text(status.stage)
            os.kill(os.getpid(), signal.SIGKILL)

    engine = JobEngine(root, watched(make_work(ENVIRONMENT or TinyEnvironment(models)), die))
    if engine.status(job).state.ended:
        engine.resume(job)
    engine.start()
    status = ended(engine, job, patience=120)
    engine.close()
    assert status.state is State.DONE, status.message
