"""Names of jobs, and the order in which they wait."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fresco.server.jobs.engine import JobConflictError, JobEngine
from fresco.server.jobs.job import JobRequest
from tests.helpers.job_bench import Bench, ended


def test_waiting_jobs_change_places_and_keep_them_over_a_restart(
    root: Path, bench: Bench, engine: JobEngine
) -> None:
    first, a, b, c = (engine.submit(JobRequest(name)).id for name in ("first", "a", "b", "c"))
    engine.start()
    bench.wait_begun()
    assert engine.queue == (a, b, c)
    assert engine.move(c, a) == (c, a, b)
    assert engine.move(c, c) == (c, a, b)
    assert engine.move(a, None) == (c, b, a)
    assert engine.rename(b, "b, renamed").title == "b, renamed"
    with pytest.raises(JobConflictError, match="running; only jobs that wait"):
        engine.move(first, None)
    with pytest.raises(JobConflictError, match="running; only jobs that wait"):
        engine.move(a, first)
    engine.close(5)
    time.sleep(0.01)
    again = JobEngine(root, bench)
    assert again.queue == (c, b, a)
    bench.gate.set()
    again.start()
    for job in (c, b, a):
        ended(again, job)
    assert bench.ran == ["first", "c", "b", "a"]
    again.close()


def test_a_job_is_named_in_any_state(bench: Bench, engine: JobEngine) -> None:
    job = engine.submit(JobRequest("folder/clip.mp4")).id
    engine.start()
    bench.wait_begun()
    assert engine.rename(job, "mine\u202e").title == "mine"
    bench.gate.set()
    assert ended(engine, job).title == "mine"
    assert engine.request(job).title == "mine"
    assert engine.rename(job, "").title == "clip.mp4"
