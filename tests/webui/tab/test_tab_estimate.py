"""The estimate before a job: counted memory, and time by what the machine did before."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fresco.progress import Progress
from fresco.run.translate import PLAN_NAME
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
from fresco.settings import from_dict
from fresco.workspace import frame_name, write_image, write_json
from tests.helpers.job_bench import ended

GIB = 1 << 30
LOAD = Workload(keys=20, frames=250, width=512, height=512, batch=8, steps=20, strength=0.75)
LOG = """\
2026-01-01 10:00:00,000 INFO all: begins
2026-01-01 10:00:00,000 INFO keyframes: begins, 4
2026-01-01 10:00:08,000 INFO batch 1: done in 7.5 s
2026-01-01 10:00:08,000 INFO keyframes: done in 8.0 s
2026-01-01 10:00:08,000 INFO propagate: begins, 56
2026-01-01 10:00:38,000 INFO propagate: done in 30.0 s
2026-01-01 10:00:38,000 INFO write: begins, 60
2026-01-01 10:00:44,000 INFO write: done in 6.0 s
2026-01-01 10:00:44,000 INFO measure keyframes: begins, 4
2026-01-01 10:00:45,000 INFO measure keyframes: done in 0.2 s
"""


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
    rates = read_rates(LOG, done)
    assert rates.key * done.key_work == pytest.approx(8.0)
    assert rates.frame * done.frame_work == pytest.approx(36.0)


def test_what_was_there_already_says_nothing_of_the_pace() -> None:
    """The keyframes first, then all of it on the same job; and a run that found nearly all."""
    again = LOG.replace("keyframes: done in 8.0 s", "keyframes: done in 0.1 s, 0 made")
    first = LOG[:LOG.index("2026-01-01 10:00:08,000 INFO propagate")]
    done = dataclasses.replace(LOAD, keys=4, frames=60)
    assert read_rates(first + again, done) == read_rates(LOG, done)
    few = LOG.replace("propagate: done in 30.0 s", "propagate: done in 3.0 s, 7 made")
    assert read_rates(few, done).frame * done.frame_work == pytest.approx(3.0 * 56 / 7 + 6.0)


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
    (engine.folder(job.id) / "log.txt").write_text(LOG, "utf-8")
    found = measure_latest(engine)
    engine.close()
    assert found == read_rates(LOG, count_workload(settings, 0, (448, 256), 0, 0))


def test_a_log_without_stages_tells_nothing() -> None:
    assert read_rates("INFO all: begins\n", LOAD) == Rates()
    assert choose_slowest([]) == Rates()


def test_the_slowest_job_counts() -> None:
    assert choose_slowest([Rates(1.0, 0.5), Rates(0.1, 2.0)]) == Rates(1.0, 2.0)


def test_the_text_says_where_its_numbers_come_from() -> None:
    unknown = " ".join(describe_estimate(LOAD, Rates()))
    assert "not measured" in unknown
    assert "not known yet" in unknown
    done = dataclasses.replace(LOAD, keys=4, frames=60)
    known = " ".join(describe_estimate(done, read_rates(LOG, done)))
    assert "about 8 s for the keyframes and 36 s for all frames" in known
    assert "latest jobs on this machine" in known
