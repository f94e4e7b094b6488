"""The estimate before a job: counted memory, and time by what the machine did before."""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path

import numpy as np
import pytest

from fresco.hosts.options import HostOptions
from fresco.options import from_dict
from fresco.progress import Progress
from fresco.run.keyframes import PLAN_NAME
from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.estimate import (
    Rates,
    Workload,
    choose_slowest,
    count_memory,
    count_workload,
    describe_estimate,
    measure_latest,
    read_rates,
)
from fresco.server.jobs.job import JobRequest
from fresco.server.jobs.runner import Outcome
from fresco.server.jobs.store import StagePace
from fresco.settings import FrescoSettings
from fresco.workspace import frame_name, write_image, write_json
from tests.helpers.job_bench import ended

GIB = 1 << 30
LOAD = Workload(keys=20, frames=250, width=512, height=512, batch=8, steps=20, strength=0.75)
PACE = {
    "keyframes": StagePace(4, 4, 8.0), "propagate": StagePace(56, 56, 30.0),
    "write": StagePace(60, 60, 6.0), "measure keyframes": StagePace(4, 4, 0.2),
}


def test_the_parts_are_those_of_the_sizes() -> None:
    need = count_memory(LOAD)
    # 64 x 64 tokens, 8 frames, 640 channels, float32: 4 copies of two chunks and 1 of one.
    assert need.optimization == 9 * 8 * 64 * 64 * 640 * 4
    assert need.decoding == 8 * 512 * 512 * 640 * 2
    assert 2.0 * GIB * 0.99 < need.model < 2.0 * GIB * 1.01
    assert need.least < need.most


def test_more_of_anything_never_needs_less() -> None:
    for change in ({"batch": 9}, {"width": 576}, {"controls": 1}, {"optimized": True}):
        smaller = dataclasses.replace(LOAD, optimized=False)
        larger = dataclasses.replace(smaller, **change)  # type: ignore[arg-type]
        assert count_memory(larger).least >= count_memory(smaller).least
    batch = dataclasses.replace(LOAD, batch=16)
    assert count_memory(batch).decoding == pytest.approx(2 * count_memory(LOAD).decoding)


def test_the_memory_does_not_grow_with_the_video() -> None:
    assert count_memory(dataclasses.replace(LOAD, frames=10**6, keys=10**5)) == count_memory(LOAD)


def test_rates_tell_the_job_itself_again() -> None:
    done = dataclasses.replace(LOAD, keys=4, frames=60)
    rates = read_rates(PACE, done)
    assert rates.key * done.key_work == pytest.approx(8.0)
    assert rates.frame * done.frame_work == pytest.approx(36.0)


def test_what_was_there_already_says_nothing_of_the_pace() -> None:
    done = dataclasses.replace(LOAD, keys=4, frames=60)
    few = PACE | {"propagate": StagePace(56, 7, 3.0)}
    assert read_rates(few, done).frame * done.frame_work == pytest.approx(3.0 * 56 / 7 + 6.0)
    none = PACE | {"keyframes": StagePace(4, 0, 0.1)}
    assert read_rates(none, done).key == 0


def test_the_pace_is_kept_with_the_job_whatever_is_logged(tmp_path: Path) -> None:
    """As at INFO, where the run logs stages of its own: the keyframes, then all of it."""
    made = [4, 0]

    def work(request: JobRequest, folder: Path, progress: Progress) -> Outcome:
        found = 4 - made.pop(0)
        with progress.stage("keyframes", 4) as stage, progress.stage("batch 1"):
            logging.getLogger("fresco").info("keyframes: begins, 400")
            stage.advance(found, found=True)
            stage.advance(4 - found)
            time.sleep(0.02)
            logging.getLogger("fresco").info("keyframes: done in 1 s")
        return Outcome(None, {}, None, None, ())

    engine = JobEngine(tmp_path, work)
    engine.start()
    job = ended(engine, engine.submit(JobRequest("a.mp4")).id)
    first = engine.stages(job.id)
    assert set(first) == {"keyframes"}
    assert (first["keyframes"].total, first["keyframes"].made) == (4, 4)
    assert 0.02 <= first["keyframes"].seconds < 1
    engine.resume(job.id)
    ended(engine, job.id)
    assert engine.stages(job.id) == first
    (engine.folder(job.id) / "stages.json").write_text("{]", "utf-8")
    assert engine.stages(job.id) == {}
    engine.close()


@pytest.mark.parametrize(("sampler", "calls"), [
    ("Heun", 2), ("DPM2 a", 2), ("DPM++ 2S a", 2), ("DPM++ SDE", 2), ("DPM++ SDE Karras", 2),
    ("dpm2-a-karras", 2), ("Euler a", 1), ("DPM++ 2M SDE Heun", 1), ("", 1),
])
def test_a_sampler_of_second_order_takes_twice_the_time(sampler: str, calls: int) -> None:
    load = count_workload(FrescoSettings(), HostOptions(sampler=sampler), (512, 512), 20, 250)
    assert load.calls == 1 + calls * 15


def test_the_pace_of_a_job_counts_for_the_size_of_its_frames(tmp_path: Path) -> None:
    """Here 448 x 256, by settings that give the short side only."""
    settings = from_dict({"sampling": {"resolution": 256}})

    def work(request: JobRequest, folder: Path, progress: Progress) -> Outcome:
        place = folder / "workspace"
        write_json(place / PLAN_NAME, {"folder": "keys", "keyframes": [0]})
        write_image(place / "keys" / frame_name(0), np.zeros((256, 448, 3), np.uint8))
        return Outcome(None, {}, None, None, ())

    engine = JobEngine(tmp_path, work)
    assert measure_latest(engine) == Rates()
    engine.start()
    job = ended(engine, engine.submit(JobRequest("a.mp4", settings=settings)).id)
    write_json(engine.folder(job.id) / "stages.json", {
        name: dataclasses.asdict(pace) for name, pace in PACE.items()
    })
    found = measure_latest(engine)
    engine.close()
    assert found == read_rates(PACE, count_workload(settings, HostOptions(), (448, 256), 0, 0))


def test_a_job_without_stages_tells_nothing() -> None:
    assert read_rates({}, LOAD) == Rates()
    assert choose_slowest([]) == Rates()


def test_the_slowest_job_counts() -> None:
    assert choose_slowest([Rates(1.0, 0.5), Rates(0.1, 2.0)]) == Rates(1.0, 2.0)


def test_the_text_says_where_its_numbers_come_from() -> None:
    unknown = " ".join(describe_estimate(LOAD, Rates()))
    assert "not measured. The weights of SDXL take 4.5 GiB more" in unknown
    assert "not known yet" in unknown
    done = dataclasses.replace(LOAD, keys=4, frames=60)
    known = " ".join(describe_estimate(done, read_rates(PACE, done)))
    assert "about 8 s for the keyframes and 36 s for all frames" in known
    assert "latest jobs on this machine" in known
