"""kill -9 at stages and at random file operations: resumed, a job ends with the same bytes.

FRESCO_SIGNALS=200 kills so many times, and at every stage; without it, a few times.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
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
from tests.helpers.crashes import (
    MODELS,
    Blow,
    Place,
    list_marked,
    open_fork_server,
    run_job,
    run_job_to_stage,
    strike,
)
from tests.helpers.faulty_files import CUT_EXIT, Fault
from tests.helpers.job_bench import NOTHING, ended, made
from tests.helpers.job_environment import TinyEnvironment, tiny_settings

STAGES = {
    "scan", "keyframes", "batch 1", "batch 2", "propagate", "write", "frame by frame", "compare",
    "frames 0 to 2", "frames 3 to 5", "frames 6 to 7", "propagate by flow", "measure",
    "measure keyframes",
}
MOST = int(os.environ.get("FRESCO_SIGNALS", "0"))
OPERATIONS = 500
"""File operations of a job, about; those behind its end are not met."""


@dataclass(frozen=True)
class Whole:
    """A job that nobody disturbed."""

    request: JobRequest
    models: Path
    files: dict[str, bytes]


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
    engine.start()
    assert ended(engine, job, patience=120).state is State.DONE
    engine.close()
    return Whole(request, models, made(engine.folder(job)))


@pytest.fixture(scope="module")
def processes(whole: Whole) -> Iterator[ForkServerContext]:
    """Processes that need not import everything and load the model anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODELS, str(whole.models))
        yield open_fork_server(whole.models)


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


def test_killed_at_stages_it_ends_with_the_same_bytes(
    whole: Whole, processes: ForkServerContext, tmp_path: Path
) -> None:
    job = _queued(tmp_path, whole)
    deadly = STAGES if MOST else set(random.sample(sorted(STAGES), 2))
    survived = STAGES - deadly
    note = tmp_path / "stage.txt"
    while True:
        process = processes.Process(
            target=run_job_to_stage, args=(tmp_path, whole.models, job, survived, note)
        )
        code = strike(process, None)
        if code == 0:
            break
        assert code == -9
        stage = note.read_text()
        assert stage not in survived
        survived.add(stage)
        _require_interrupted(tmp_path, job)
    assert survived == STAGES
    assert _list_differences(tmp_path / job, whole) == []


def test_killed_at_random_file_operations_it_ends_with_the_same_bytes(
    whole: Whole, processes: ForkServerContext, tmp_path: Path
) -> None:
    chance = random.Random()
    told: Counter[str] = Counter()
    root = tmp_path / "jobs"
    place = Place(root, tmp_path / "temporary", tmp_path)
    place.temporary.mkdir()
    while told["signals"] < (MOST or 2):
        job, blows = _queued(root, whole), []
        while True:
            blow = None
            if len(blows) < 3 and told["signals"] < (MOST or 2):
                fault = chance.choice((Fault.SIGKILL, Fault.SIGTERM, Fault.CUT))
                blow = Blow(fault, at=chance.randrange(OPERATIONS))
                blows.append(blow)
            code = strike(
                processes.Process(
                    target=run_job, args=(root, whole.models, job, place, blow)
                ), blow,
            )
            assert list_marked(place) == [], blows
            if code == 0:
                break
            assert blow is not None, (blows, (tmp_path / "stderr").read_text())
            assert code in (-9, -15, CUT_EXIT), (blows, (tmp_path / "stderr").read_text())
            told.update(["signals", blow.fault.name])
        unlike = _list_differences(root / job, whole)
        assert unlike == [], blows
        left = [path for path in root.rglob(".*") if path.is_file()]
        assert left == [], blows
        told.update(["jobs"])
        if MOST:
            sys.__stderr__.write(f"{dict(told)}\n")
