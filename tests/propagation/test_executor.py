"""Segments on a pool: same pictures for any number of processes, deaths, cancellation."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fresco.errors import Cancelled, PropagationError
from fresco.progress import Progress, StageStatus
from fresco.propagation.executor import count_workers, run_segments, share_cores
from tests.helpers.scenes import (
    DyingScene,
    SlidingScene,
    SlowScene,
    contents,
    list_pictures,
    make_jobs,
)

KEYS = [0, 3, 4, 6]
SCENE = SlidingScene(7, height=40, width=48, square=12)


def run(jobs: list, workers: int, notes: list[str] | None = None) -> list[StageStatus]:
    heard: list[StageStatus] = []
    with Progress(heard.append).stage("propagate", sum(len(job.interior) for job in jobs)) as stage:
        told = run_segments(jobs, workers, stage)
    if notes is not None:
        notes += told
    return heard


def test_frames_of_before_are_counted_and_left_alone(tmp_path: Path) -> None:
    jobs = make_jobs(SCENE, KEYS, tmp_path)
    run(jobs, 1)
    whole = contents(tmp_path / "frames")
    (tmp_path / "frames" / "000002.png").unlink()
    kept = (tmp_path / "frames" / "000001.png").stat().st_mtime_ns
    heard = run(jobs, 1)
    assert heard[1].done == 2
    assert heard[-1].done == 3
    assert contents(tmp_path / "frames") == whole
    assert (tmp_path / "frames" / "000001.png").stat().st_mtime_ns == kept


def test_adjacent_keys_need_nothing(tmp_path: Path) -> None:
    assert run(make_jobs(SCENE, [0, 1, 2], tmp_path), 2)[-1].done == 0
    assert contents(tmp_path / "frames") == {}


@pytest.mark.filterwarnings("ignore:A worker stopped:UserWarning")
def test_processes_give_the_same_bytes_as_one_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    scene = DyingScene(7, height=40, width=48, square=12, at=1, flag=str(tmp_path / "died"))
    notes: list[str] = []
    heard = run(make_jobs(scene, KEYS, tmp_path / "dying"), 2, notes)
    assert [note.partition(" at work")[0] for note in notes] == ["A worker process died"]
    assert (tmp_path / "died").exists()
    assert heard[-1].done == heard[-1].total == 3
    run(make_jobs(SCENE, KEYS, tmp_path / "living"), 1)
    alone = contents(tmp_path / "living" / "frames")
    assert list_pictures(alone) == ["000001.png", "000002.png", "000005.png"]
    assert contents(tmp_path / "dying" / "frames") == alone


@pytest.mark.filterwarnings("ignore:A worker stopped:UserWarning")
def test_workers_that_keep_dying_are_an_error_that_names_the_frames(tmp_path: Path) -> None:
    scene = DyingScene(7, height=40, width=48, square=12, at=1)
    with pytest.raises(PropagationError, match=r"at work on frames 0 to 3.*fewer workers"):
        run(make_jobs(scene, KEYS, tmp_path), 2)


def test_a_source_that_ends_early_is_an_error(tmp_path: Path) -> None:
    short = SlidingScene(5, height=40, width=48, square=12)
    jobs = [replace(job, frames=short) for job in make_jobs(SCENE, KEYS, tmp_path)]
    with pytest.raises(PropagationError, match="gave 1 of the 3 frames 4 to 6"):
        run(jobs, 1)


def test_a_damaged_frame_is_found_out(tmp_path: Path) -> None:
    jobs = make_jobs(SCENE, KEYS, tmp_path)
    jobs[0].path(1).write_bytes(b"no picture")
    with pytest.raises(PropagationError, match=r"000001\.png cannot be read, or is .*; delete it"):
        run(jobs, 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_cancelling_stops_at_once_and_leaves_no_process(tmp_path: Path, workers: int) -> None:
    scene = SlowScene(60, height=40, width=48, folder=str(tmp_path))
    jobs = make_jobs(scene, [0, 20, 40, 59], tmp_path)
    progress = Progress()
    seen: list[float] = []

    def cancel_when_begun() -> None:
        while not list(tmp_path.glob("pid-*")):
            time.sleep(0.05)
        seen.append(time.monotonic())
        progress.token.cancel()

    watcher = threading.Thread(target=cancel_when_begun)
    watcher.start()
    with progress.stage("propagate", 56) as stage, pytest.raises(Cancelled):
        run_segments(jobs, workers, stage)
    watcher.join()
    assert time.monotonic() - seen[0] < 5
    pids = {int(path.name.split("-")[1]) for path in tmp_path.glob("pid-*")} - {os.getpid()}
    assert all(not Path(f"/proc/{pid}").exists() for pid in pids)
    assert bool(pids) == (workers > 1)


def test_processes_find_the_package_where_a_webui_took_its_folder_off_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(Path(__file__).resolve().parents[2])
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", root)])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    run(make_jobs(SCENE, KEYS, tmp_path), 2)
    assert len(list_pictures(contents(tmp_path / "frames"))) == 3
    assert root not in sys.path


def test_worker_count() -> None:
    assert count_workers(0, 1) == 1
    assert count_workers(0, 10**6) >= 1
    assert count_workers(8, 3) == 3
    assert count_workers(2, 100) == 2


def test_cores_are_shared_out_to_the_last_turn() -> None:
    assert share_cores(4, 2, 2) == [1, 1, 1, 1]
    assert share_cores(3, 2, 2) == [1, 1, 2]
    assert share_cores(3, 3, 8) == [3, 3, 2]
    assert share_cores(5, 4, 9) == [3, 2, 2, 2, 9]
    assert share_cores(2, 1, 6) == [6, 6]
    assert share_cores(7, 7, 4) == [1] * 7
