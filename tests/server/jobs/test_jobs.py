"""The queue of jobs: states, order, listeners, progress, the log."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fresco.errors import Cancelled, SettingsError, VideoError
from fresco.progress import Progress
from fresco.server.jobs.engine import JobConflictError, JobEngine, UnknownJobError
from fresco.server.jobs.job import (
    Goal,
    JobRequest,
    JobStatus,
    State,
    draw_seeds,
    load_request,
    with_seed,
)
from fresco.server.jobs.runner import Outcome
from tests.helpers.job_bench import NOTHING, PATIENCE, Bench, ended, on_disk


def test_jobs_run_one_after_the_other_in_order(engine: JobEngine, bench: Bench) -> None:
    jobs = [engine.submit(JobRequest(f"{n}.mp4")).id for n in range(3)]
    assert [status.id for status in engine.jobs()] == jobs[::-1]
    assert [status.id for status in engine.jobs(2)] == jobs[:0:-1]
    assert bench.ran == []  # nothing runs before the start
    engine.start()
    engine.start()
    bench.wait_begun()
    assert [engine.status(job).state for job in jobs] == [
        State.RUNNING, State.QUEUED, State.QUEUED
    ]
    bench.gate.set()
    assert {ended(engine, job).state for job in jobs} == {State.DONE}
    assert bench.ran == ["0.mp4", "1.mp4", "2.mp4"]


def test_ids_are_opaque_and_nothing_else_is_looked_up(engine: JobEngine, root: Path) -> None:
    job = engine.submit(JobRequest("a.mp4")).id
    assert len(job) == 16
    (root / "private").mkdir()
    for wrong in ("", ".", "..", "private", "../jobs", f"{job}/", job.upper() + "X", "0" * 16,
                  f"{job}\n", "/etc"):
        for call in (engine.status, engine.request, engine.cancel, engine.resume, engine.delete,
                     engine.outcome, engine.log, engine.folder):
            with pytest.raises(UnknownJobError, match="There is no job"):
                call(wrong)
    assert (root / "private").is_dir()


def test_a_queued_job_is_cancelled_and_never_runs(engine: JobEngine, bench: Bench) -> None:
    first, second = (engine.submit(JobRequest(name)).id for name in ("a.mp4", "b.mp4"))
    assert engine.cancel(first).state is State.CANCELLED
    with pytest.raises(JobConflictError, match="nothing to cancel"):
        engine.cancel(first)
    engine.start()
    bench.gate.set()
    assert ended(engine, second).state is State.DONE
    assert bench.ran == ["b.mp4"]


def test_a_running_job_is_cancelled_at_its_next_step(
    engine: JobEngine, bench: Bench, root: Path
) -> None:
    engine.start()
    job = engine.submit(JobRequest("a.mp4")).id
    bench.wait_begun()
    for call in (engine.delete, engine.resume):
        with pytest.raises(JobConflictError, match="running"):
            call(job)
    status = engine.cancel(job)
    assert status.state in (State.CANCELLING, State.CANCELLED)
    status = ended(engine, job)
    assert status.state is State.CANCELLED
    assert "start it again" in status.message
    assert (status.stage, status.done, status.total) == ("work", 1, 4)
    assert on_disk(root, job)["state"] == "cancelled"
    bench.gate.set()
    assert engine.resume(job).state is State.QUEUED
    assert ended(engine, job).state is State.DONE


def test_what_stops_by_itself_passes_through_cancelling(
    engine: JobEngine, bench: Bench
) -> None:
    """The host's own interrupt: nobody asked the engine."""
    def stop(folder: Path) -> Outcome:
        raise Cancelled("Interrupted by the host. Resume it.")

    bench.act = stop
    bench.gate.set()
    engine.start()
    job = engine.submit(JobRequest("a.mp4")).id
    status = ended(engine, job)
    assert (status.state, status.message) == (
        State.CANCELLED, "Interrupted by the host. Resume it."
    )


@pytest.mark.parametrize(("error", "words"), [
    (VideoError("a.mp4 is empty; copy it again."), "a.mp4 is empty; copy it again."),
    (OSError(28, "No space left on device", "/full/frame.png"),
     "/full/frame.png cannot be written: the disk is full"),
])
def test_a_failure_says_its_sentence_and_the_next_job_runs(
    engine: JobEngine, bench: Bench, error: Exception, words: str
) -> None:
    def fail(folder: Path) -> Outcome:
        raise error

    bench.act = fail
    bench.gate.set()
    engine.start()
    job = engine.submit(JobRequest("a.mp4")).id
    status = ended(engine, job)
    assert status.state is State.FAILED
    assert words in status.message
    assert words in engine.log(job)
    bench.act = lambda folder: NOTHING
    assert ended(engine, engine.submit(JobRequest("b.mp4")).id).state is State.DONE


def test_a_fault_of_the_program_ends_the_job_and_not_the_worker(
    engine: JobEngine, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(folder: Path) -> Outcome:
        raise SystemExit(ZeroDivisionError("oops"))

    bench.act = fail
    bench.gate.set()
    engine.start()
    job = engine.submit(JobRequest("a.mp4")).id
    status = ended(engine, job)
    assert status.state is State.FAILED
    assert "oops" in status.message
    assert "Traceback" in engine.log(job)
    caplog.clear()
    bench.act = lambda folder: NOTHING
    assert ended(engine, engine.resume(job).id).state is State.DONE


def test_a_job_can_be_resumed_with_another_goal(engine: JobEngine, bench: Bench) -> None:
    bench.gate.set()
    engine.start()
    request = JobRequest("a.mp4", Goal.KEYFRAMES)
    job = engine.submit(request).id
    before = ended(engine, job)
    status = engine.resume(job, dataclasses.replace(request, goal=Goal.ALL, title="The film"))
    assert (status.state, status.goal, status.title) == (State.QUEUED, Goal.ALL, "The film")
    assert status.created == before.created
    assert status.version > before.version
    assert ended(engine, job).goal is Goal.ALL
    assert engine.request(job).goal is Goal.ALL


def test_a_finished_job_has_nothing_to_resume(engine: JobEngine, bench: Bench) -> None:
    """Unless something of it is changed, or is gone."""
    def act(folder: Path) -> Outcome:
        (folder / "result.mp4").write_bytes(b"film")
        return Outcome(folder / "result.mp4", {}, None, None, ())

    bench.act = act
    bench.gate.set()
    engine.start()
    request = JobRequest("a.mp4")
    job = engine.submit(request).id
    before = ended(engine, job)
    for same in (None, request):
        with pytest.raises(JobConflictError, match="nothing to resume; what it made is kept"):
            engine.resume(job, same)
    assert engine.status(job) == before
    engine.resume(job, dataclasses.replace(request, title="The film"))
    ended(engine, job)
    (engine.folder(job) / "result.mp4").unlink()
    engine.resume(job)
    assert ended(engine, job).result == "new"


def test_the_same_request_is_queued_once_while_it_waits_or_runs(
    engine: JobEngine, bench: Bench
) -> None:
    request = JobRequest("a.mp4")
    job, fresh = engine.submit_once(request)
    assert fresh
    assert engine.submit_once(request) == (job, False)
    assert engine.submit_once(dataclasses.replace(request, goal=Goal.KEYFRAMES))[1]
    engine.start()
    bench.wait_begun()
    again, fresh = engine.submit_once(request)
    assert (again.id, again.state, fresh) == (job.id, State.RUNNING, False)
    bench.gate.set()
    ended(engine, job.id)
    assert engine.submit_once(request)[1], "what has ended may be done once more"


def test_a_job_that_is_being_cancelled_is_not_what_is_asked_for(root: Path) -> None:
    begun, gate = threading.Event(), threading.Event()

    def deaf(request: JobRequest, folder: Path, progress: Progress) -> Outcome:
        begun.set()
        assert gate.wait(PATIENCE)
        progress.token.check()
        return NOTHING

    engine = JobEngine(root, deaf)
    engine.start()
    request = JobRequest("a.mp4")
    job = engine.submit(request).id
    assert begun.wait(PATIENCE)
    assert engine.cancel(job).state is State.CANCELLING
    other, fresh = engine.submit_once(request)
    assert fresh
    gate.set()
    assert ended(engine, job).state is State.CANCELLED
    assert ended(engine, other.id).state is State.DONE
    engine.close()


def test_two_presses_at_once_queue_one_job(engine: JobEngine) -> None:
    requests = [JobRequest("a.mp4") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(engine.submit_once, requests))
    assert len(engine.jobs()) == 1
    assert [fresh for _, fresh in found].count(True) == 1


def test_the_same_keyframes_sent_twice_are_one_job(engine: JobEngine) -> None:
    def sent(data: bytes) -> JobRequest:
        folder = engine.new_folder()
        (folder / "000001.png").write_bytes(data)
        return JobRequest("a.mp4", Goal.PROPAGATION, own_keys=str(folder))

    first = engine.submit_once(sent(b"one"))[0]
    second = sent(b"one")
    assert engine.submit_once(second) == (first, False)
    assert not Path(second.own_keys).exists(), "nothing of it is left"
    assert engine.submit_once(sent(b"two"))[1]
    assert len(engine.jobs()) == 2


def test_a_random_seed_is_drawn_and_kept(engine: JobEngine) -> None:
    request = from_random = with_seed(JobRequest("a.mp4"), -1)
    drawn = [draw_seeds(request) for _ in range(3)]
    seeds = [each.settings.sampling.seed for each in drawn]
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert len(set(seeds)) > 1
    assert draw_seeds(drawn[0]) == drawn[0]
    job = engine.submit_once(drawn[0])[0]
    assert engine.submit_once(drawn[1], pressed=60) == (job, False), "one press"
    assert engine.submit_once(drawn[1], pressed=0)[1], "another image is wanted"
    assert engine.request(job.id).settings.sampling.seed == seeds[0]
    again = dataclasses.replace(from_random, goal=Goal.KEYFRAME, frame=3, frame_seed=-1)
    assert 0 <= (draw_seeds(again).frame_seed or -1) < 2**32


def test_a_deletion_wakes_who_waits(engine: JobEngine) -> None:
    job = engine.submit(JobRequest("a.mp4")).id
    seen: list[Exception] = []

    def listen() -> None:
        try:
            engine.wait(job, engine.status(job).version, PATIENCE)
        except UnknownJobError as error:
            seen.append(error)

    listener = threading.Thread(target=listen)
    listener.start()
    time.sleep(0.05)
    engine.delete(job)
    listener.join(PATIENCE)
    assert len(seen) == 1


def test_listeners_see_rising_versions_up_to_the_end(engine: JobEngine, bench: Bench) -> None:
    job = engine.submit(JobRequest("a.mp4")).id
    seen: list[list[JobStatus]] = [[], [], []]

    def listen(heard: list[JobStatus]) -> None:
        status = engine.status(job)
        while not status.state.ended:
            status = engine.wait(job, status.version, PATIENCE)
            heard.append(status)

    listeners = [threading.Thread(target=listen, args=(heard,)) for heard in seen]
    for listener in listeners:
        listener.start()
    engine.start()
    bench.wait_begun()
    bench.gate.set()
    for listener in listeners:
        listener.join(PATIENCE)
    for heard in seen:
        assert heard[-1].state is State.DONE
        assert all(a.version < b.version for a, b in itertools.pairwise(heard))


def test_waiting_ends_in_time(engine: JobEngine) -> None:
    status = engine.submit(JobRequest("a.mp4"))
    assert engine.wait(status.id, status.version - 1, PATIENCE) == status  # at once
    start = time.monotonic()
    assert engine.wait(status.id, status.version, 0.1) == status
    assert 0.09 < time.monotonic() - start < PATIENCE / 2


def test_closing_cancels_what_runs_and_keeps_what_waits(
    engine: JobEngine, bench: Bench, root: Path
) -> None:
    before = threading.active_count()
    engine.start()
    running, queued = (engine.submit(JobRequest(name)).id for name in ("a.mp4", "b.mp4"))
    bench.wait_begun()
    engine.close()
    assert threading.active_count() == before
    assert engine.status(running).state is State.CANCELLED
    assert "Resume" in engine.status(running).message
    with pytest.raises(JobConflictError, match="closed"):
        engine.submit(JobRequest("c.mp4"))
    other = Bench()
    other.gate.set()
    again = JobEngine(root, other)
    again.start()
    assert ended(again, queued).state is State.DONE
    assert ended(again, again.resume(running).id).state is State.DONE
    again.close()


def test_progress_is_told_often_and_written_seldom(tmp_path: Path) -> None:
    """3000 reports within a moment are a few versions and fewer files."""
    written: list[int] = []

    def quick(request: JobRequest, folder: Path, progress: Progress) -> Outcome:
        with progress.stage("scan", 3000) as stage:
            for number in range(3000):
                stage.advance()
                if number % 100 == 0:
                    written.append(on_disk(folder.parent, folder.name)["version"])
        return NOTHING

    engine = JobEngine(tmp_path, quick)
    engine.start()
    start = time.monotonic()
    status = ended(engine, engine.submit(JobRequest("a.mp4")).id)
    seconds = time.monotonic() - start
    assert status.version < 10 + 12 * seconds
    assert len(set(written)) < 4 + 4 * seconds
    assert (status.done, status.total) == (3000, 3000)
    engine.close()


def test_the_outermost_stage_is_shown_and_the_inner_one_told(tmp_path: Path) -> None:
    def nested(request: JobRequest, folder: Path, progress: Progress) -> Outcome:
        with progress.stage("keyframes", 2) as outer:
            for number in (1, 2):
                with progress.stage(f"batch {number}", 3) as inner:
                    time.sleep(0.12)
                    inner.advance()
                    seen.append(engine.status(folder.name))
                outer.advance()
        return NOTHING

    seen: list[JobStatus] = []
    engine = JobEngine(tmp_path, nested)
    job = engine.submit(JobRequest("a.mp4")).id
    engine.start()
    ended(engine, job)
    assert [(s.stage, s.done, s.total) for s in seen] == [("keyframes", 0, 2), ("keyframes", 1, 2)]
    assert seen[0].message == "batch 1 1 of 3"
    assert seen[0].seconds_left is None
    assert (seen[1].seconds_left or 0) >= 0.2  # the first took 0.12 s, the second took as long
    lines = engine.log(job).splitlines()
    assert [line for line in lines if "batch 2: begins, 3" in line]
    engine.close()


def test_the_log_holds_what_the_job_logged_and_no_more(engine: JobEngine, bench: Bench) -> None:
    logger = logging.getLogger("fresco")
    handlers = list(logger.handlers)

    def act(folder: Path) -> Outcome:
        logger.warning("from the job")
        other = threading.Thread(target=logger.warning, args=("from another",))
        carrier = threading.Thread(
            target=logger.warning, args=("from a segment",), name="fresco-segment_0"
        )
        for thread in (other, carrier):
            thread.start()
            thread.join()
        return NOTHING

    bench.act = act
    bench.gate.set()
    engine.start()
    job = engine.submit(JobRequest("a.mp4")).id
    ended(engine, job)
    logger.warning("afterwards")
    text = engine.log(job)
    assert "from the job" in text
    assert "from a segment" in text
    assert "from another" not in text
    assert "afterwards" not in text
    assert logger.handlers == handlers


@pytest.mark.parametrize(("values", "words"), [
    ({"source": 5}, "source is 5"),
    ({"source": "a", "goal": "fly"}, "fly"),
    ({"source": "a", "title": ["x"]}, "title"),
    ({"source": "a", "preview": 0}, "preview is 0"),
    ({"source": "a", "preview": True}, "preview is True"),
    ({"source": "a", "goal": "keyframe"}, "no frame is named"),
    ({"source": "a", "goal": "keyframe", "frame": 3, "frame_seed": -1}, "frame_seed is -1"),
    ({"source": "a", "goal": "propagation"}, "there are no keyframes"),
    ({"source": "a", "random_seed": 1}, "random_seed is 1"),
    ({"source": "a", "host": {"model": 1}}, "model is 1"),
    ({"source": "a", "host": {"control": [{"model": "m", "weight": 9}]}}, "control.weight"),
    ({"source": "a", "wings": 2}, "wings"),
    ({}, "source"),
])
def test_a_request_that_makes_no_sense_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_request(values)
