"""Segments by patches on processes and on a cluster: same bytes, nothing left, all errors told."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fresco.errors import Cancelled, PropagationError
from fresco.progress import Progress
from fresco.propagation import cluster, executor
from fresco.propagation.engine import PatchEngine
from fresco.propagation.executor import count_cores, run_segments
from fresco.propagation.program import OVERRIDE, require_program
from fresco.propagation.segment import SegmentJob
from tests.helpers.fake_ebsynth import fake_program, starts
from tests.helpers.processes import left_running
from tests.helpers.scenes import DyingScene, SlidingScene, contents, list_pictures, make_jobs

KEYS = [0, 4, 5, 8]
SCENE = SlidingScene(9, height=40, width=48, square=12)


def run(jobs: list[SegmentJob], workers: int, **options: str) -> list[str]:
    total = sum(len(job.interior) for job in jobs)
    with Progress().stage("propagate", total) as stage:
        return run_segments(jobs, workers, stage, **options)


@pytest.fixture
def alone(tmp_path: Path, engine: PatchEngine) -> dict[str, bytes]:
    """What one process makes."""
    run(make_jobs(SCENE, KEYS, tmp_path / "alone", engine=engine), 1)
    return contents(tmp_path / "alone" / "frames")


def threads_of(program: Path) -> set[int]:
    words = [json.loads(line) for line in starts(program)]
    return {int(w[w.index("-threads") + 1]) for w in words if "-threads" in w}


def test_one_worker_has_all_cores(fake: Path, alone: dict[str, bytes]) -> None:
    assert len(list_pictures(alone)) == 5
    assert threads_of(fake) == {max(1, count_cores() // 2)}


@pytest.mark.parametrize("workers", [1, 2])
def test_cancelling_leaves_no_program(
    tmp_path: Path, engine: PatchEngine, fake: Path, workers: int
) -> None:
    (fake.parent / "mode").write_text("hang 2")
    jobs = make_jobs(SCENE, KEYS, tmp_path, engine=engine)
    progress, seen = Progress(), list[float]()

    def cancel_when_hanging() -> None:
        while not (fake.parent / "hanging").exists():
            time.sleep(0.05)
        seen.append(time.monotonic())
        progress.token.cancel()

    watcher = threading.Thread(target=cancel_when_hanging)
    watcher.start()
    with progress.stage("propagate", 5) as stage, pytest.raises(Cancelled):
        run_segments(jobs, workers, stage)
    watcher.join()
    assert time.monotonic() - seen[0] < 5
    pids = {json.loads(line)[0] for line in starts(fake)}
    assert pids
    assert left_running(pids) == []
    (fake.parent / "mode").write_text("")
    run(jobs, 1)
    assert not [job for job in jobs if job.find_missing()]


def test_an_error_of_the_program_reaches_the_run_through_a_process(
    tmp_path: Path, engine: PatchEngine, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose programs share the cores."""
    (fake.parent / "mode").write_text("wrong")
    monkeypatch.setattr(executor, "count_cores", lambda: 9)
    with pytest.raises(PropagationError, match="lost 2 times at the same frame"):
        run(make_jobs(SCENE, KEYS, tmp_path, engine=engine), 2)
    assert threads_of(fake) == {2}


# Clusters


@dataclass(frozen=True)
class Cluster:
    """Two worker processes on this machine, with a program of their own."""

    address: str
    program: Path
    engine: PatchEngine


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    import dask
    from distributed import LocalCluster

    program = fake_program(tmp_path_factory.mktemp("program"))
    scratch = str(tmp_path_factory.mktemp("dask"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(OVERRIDE, str(program))
        known = require_program()
        patient = {"distributed.comm.timeouts.connect": "120s"}  # where the machine is busy
        with dask.config.set(patient), LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0",
            host="127.0.0.1", local_directory=scratch,
        ) as local:
            work = PatchEngine("balanced", known.fingerprint, known.version)
            yield Cluster(local.scheduler_address, program, work)


def test_a_cluster_gives_the_same_bytes(
    tmp_path: Path, far: Cluster, alone: dict[str, bytes]
) -> None:
    run(make_jobs(SCENE, KEYS, tmp_path / "far", engine=far.engine), 1, cluster=far.address)
    assert contents(tmp_path / "far" / "frames") == alone
    assert threads_of(far.program) == {1}
    by_flow = make_jobs(SCENE, KEYS, tmp_path / "flow")
    run(by_flow, 1)
    run(make_jobs(SCENE, KEYS, tmp_path / "far flow"), 1, cluster=far.address)
    assert contents(tmp_path / "far flow" / "frames") == contents(by_flow[0].folder)


def test_a_worker_of_a_cluster_that_dies_costs_its_segment_and_is_told(
    tmp_path: Path, far: Cluster, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OVERRIDE, str(far.program))  # what the worker that takes its place gets
    scene = DyingScene(9, height=40, width=48, square=12, at=2, flag=str(tmp_path / "died"))
    jobs = make_jobs(scene, KEYS, tmp_path / "dying", engine=far.engine)
    (note,) = run(jobs, 1, cluster=far.address)
    assert re.search(r"lost at work on frames 0 to 4 \(process \d+ on .*another one has", note)
    assert contents(tmp_path / "dying" / "frames") == alone


def test_a_cluster_tells_its_errors(tmp_path: Path, far: Cluster) -> None:
    other = replace(far.engine, fingerprint="another")
    with pytest.raises(PropagationError, match="is not the program that the run began with"):
        run(make_jobs(SCENE, KEYS, tmp_path, engine=other), 1, cluster=far.address)
    assert not list((tmp_path / "frames").glob(".stop-*"))


def test_cancelling_stops_the_machines_of_a_cluster(tmp_path: Path, far: Cluster) -> None:
    (far.program.parent / "mode").write_text("slow")
    jobs = make_jobs(SlidingScene(30, height=40, width=48), [0, 14, 29], tmp_path,
                     engine=far.engine)
    begun = len(starts(far.program))
    progress, seen = Progress(), list[float]()

    def cancel_when_begun() -> None:
        while len(starts(far.program)) < begun + 2:
            time.sleep(0.05)
        seen.append(time.monotonic())
        progress.token.cancel()

    watcher = threading.Thread(target=cancel_when_begun)
    watcher.start()
    with progress.stage("propagate", 27) as stage, pytest.raises(Cancelled):
        run_segments(jobs, 1, stage, cluster=far.address)
    watcher.join()
    assert time.monotonic() - seen[0] < 8
    pids = {json.loads(line)[0] for line in starts(far.program)}
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert not list((tmp_path / "frames").glob(".stop-*"))
    (far.program.parent / "mode").write_text("")


def test_a_scheduler_that_is_not_there_is_named(
    tmp_path: Path, engine: PatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1.0)
    jobs = make_jobs(SCENE, KEYS, tmp_path, engine=engine)
    with pytest.raises(PropagationError, match=r"tcp://127\.0\.0\.1:1 does not answer .*cluster"):
        run(jobs, 1, cluster="tcp://127.0.0.1:1")
    with pytest.raises(PropagationError, match="tän does not answer"):
        run(jobs, 1, cluster="tän")


def test_a_cluster_without_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(PropagationError, match="distributed is not installed; pip install"):
        run(make_jobs(SCENE, KEYS, tmp_path), 1, cluster="tcp://127.0.0.1:1")
