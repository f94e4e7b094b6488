"""kill -9 at every stage and at random moments: resumed, a job ends with the same bytes."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.job import JobRequest, State
from fresco.server.jobs.runner import make_work
from fresco.workspace import Workspace
from tests.helpers.clips import ClipOptions, moving_texture, write_clip
from tests.helpers.job_bench import NOTHING, ended, made
from tests.helpers.job_crashes import MODELS, run_job
from tests.helpers.job_environment import TinyEnvironment, tiny_settings

STAGES = {
    "scan", "keyframes", "batch 1", "batch 2", "propagate", "write", "frame by frame", "compare",
    "frames 0 to 2", "frames 3 to 5", "frames 6 to 7", "propagate by flow", "measure",
    "measure keyframes",
}
RANDOM_KILLS = 5


@dataclass(frozen=True)
class Whole:
    """A job that nobody disturbed."""

    request: JobRequest
    models: Path
    files: dict[str, bytes]
    seconds: float


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    models = tmp_path_factory.getbasetemp() / "job-models"
    folder = tmp_path_factory.mktemp("whole")
    clip = write_clip(
        folder / "clip.mp4", moving_texture(8, 64, 64), ClipOptions(sound=("aac",))
    )
    settings = tiny_settings({
        "sampling": {"strength": 0.25},  # one call of the model
        "keyframes": {"keys": "0,2,4,7"}, "propagation": {"method": "patch"},
        "output": {"compare": True, "measures": True},
    })
    engine = JobEngine(folder / "jobs", make_work(TinyEnvironment(models)))
    request = JobRequest(str(clip), settings=settings)
    job = engine.submit(request).id
    start = time.monotonic()
    engine.start()
    assert ended(engine, job, patience=120).state is State.DONE
    seconds = time.monotonic() - start
    engine.close()
    return Whole(request, models, made(engine.folder(job)), seconds)


@pytest.fixture(scope="module")
def processes(whole: Whole) -> Iterator[ForkServerContext]:
    """Processes that need not import everything and load the model anew."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.job_crashes"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODELS, str(whole.models))
        yield context


def _queued(root: Path, whole: Whole) -> str:
    """A job that waits for a program to run it."""
    engine = JobEngine(root, lambda request, folder, progress: NOTHING)
    job = engine.submit(whole.request).id
    engine.close()
    return job


def _list_differences(folder: Path, whole: Whole) -> list[str]:
    """Files of a job that are not as those of the run that nobody stopped."""
    found = made(folder)
    names = sorted(found.keys() | whole.files.keys())
    return [name for name in names if found.get(name) != whole.files.get(name)]


def _require_interrupted(root: Path, job: str) -> None:
    """What the next program finds."""
    with Workspace(root / job / "workspace"):
        pass  # no lock is left
    engine = JobEngine(root, lambda request, folder, progress: NOTHING)
    status = engine.status(job)
    engine.close()
    assert status.state is State.FAILED
    assert "Resume it" in status.message
    if (root / job / "result.mp4").exists():
        assert engine.outcome(job).output is None  # not checked yet, so not shown


def test_killed_at_every_stage_it_ends_with_the_same_bytes(
    whole: Whole, processes: ForkServerContext, tmp_path: Path
) -> None:
    job = _queued(tmp_path, whole)
    survived: set[str] = set()
    note = tmp_path / "stage.txt"
    while True:
        process = processes.Process(
            target=run_job, args=(tmp_path, whole.models, job, survived, note)
        )
        process.start()
        process.join(120)
        if process.exitcode == 0:
            break
        assert process.exitcode == -9
        stage = note.read_text()
        assert stage not in survived
        survived.add(stage)
        _require_interrupted(tmp_path, job)
    assert survived == STAGES
    assert _list_differences(tmp_path / job, whole) == []


def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    whole: Whole, processes: ForkServerContext, tmp_path: Path
) -> None:
    chance = random.Random()
    kills: list[float] = []
    job = _queued(tmp_path, whole)
    while len(kills) < RANDOM_KILLS or job:
        job = job or _queued(tmp_path, whole)
        process = processes.Process(
            target=run_job, args=(tmp_path, whole.models, job, None, tmp_path / "unused")
        )
        process.start()
        patience = chance.uniform(0.1, 0.4 * whole.seconds)
        process.join(patience if len(kills) < RANDOM_KILLS else 120)
        if process.exitcode is None:
            process.kill()
            process.join()
            kills.append(patience)
            continue
        assert process.exitcode == 0, kills
        assert _list_differences(tmp_path / job, whole) == [], kills
        job = ""
