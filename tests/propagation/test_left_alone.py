"""Nothing that a run starts outlives it, even one that is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fresco.propagation.program import OVERRIDE
from tests.helpers.fake_ebsynth import fake_program, starts
from tests.helpers.processes import left_running
from tests.helpers.shared import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="looks at /proc")

RUN = """
import sys
from pathlib import Path
from fresco.progress import Progress
from fresco.propagation.engine import PatchEngine
from fresco.propagation.executor import run_segments
from fresco.propagation.program import require_program
from tests.helpers.scenes import SlidingScene, make_jobs

folder, workers, scale = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
program = require_program()
engine = PatchEngine("best", program.fingerprint, program.version)
jobs = make_jobs(
    SlidingScene(25, height=64, width=80), [0, 12, 24], folder, engine=engine, scale=scale
)
with Progress().stage("propagate", 22) as stage:
    run_segments(jobs, workers, stage)
"""


def _children(pid: int) -> list[int]:
    """All that descends from a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *_children(child)]
    return found


def _start(folder: Path, workers: int, *, scale: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), str(workers), str(scale)], cwd=ROOT, text=True,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )


def _wait(reached: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_workers_and_their_programs_end_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program hangs, so that nothing but the end of the run can end it."""
    program = fake_program(tmp_path / "program", "hang 2")
    monkeypatch.setenv(OVERRIDE, str(program))
    with _start(tmp_path, 2) as run:
        _wait((tmp_path / "program" / "hanging").exists)
        left = set(_children(run.pid)) | {json.loads(line)[0] for line in starts(program)}
        assert len(left) > 3  # two workers, their programs, the tracker of loky
        run.kill()
        run.wait(10)
        assert left_running(left) == []


def test_the_shipped_program_ends_with_the_run_that_works_in_its_own_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(OVERRIDE, raising=False)
    with _start(tmp_path, 1, scale=4) as run:
        _wait(lambda: list((tmp_path / "frames").glob(".segment-*/forward-*")))
        left = _children(run.pid)
        assert left
        run.kill()
        run.wait(10)
        assert left_running(left) == []


def test_what_ends_with_its_parent_ends_when_the_parent_is_gone_before_it_looks() -> None:
    child = subprocess.run(
        [sys.executable, "-c", "import sys, time\nfrom fresco.processes import end_with_parent\n"
         "end_with_parent(1 << 30, lambda: print('finished', flush=True))\ntime.sleep(60)"],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )
    assert (child.returncode, child.stdout) == (1, "finished\n")
