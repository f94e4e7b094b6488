"""Jobs on disk: what a restart finds, what a deletion removes, what a full disk does."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fresco.errors import VideoError, WorkspaceError
from fresco.progress import Progress
from fresco.server.jobs.engine import JobConflictError, JobEngine, UnknownJobError
from fresco.server.jobs.job import Goal, JobRequest, State, load_status
from fresco.server.jobs.runner import Outcome
from fresco.server.jobs.store import JobStore
from fresco.writing import name_part
from tests.helpers.job_bench import NOTHING, PATIENCE, Bench, ended, on_disk


def test_a_restart_finds_every_job_as_it_was(
    engine: JobEngine, bench: Bench, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The folders are copied while a job runs, as if the program had been killed then."""
    engine.start()
    dropped = engine.submit(JobRequest("dropped.mp4")).id
    bench.wait_begun()
    engine.cancel(dropped)
    ended(engine, dropped)
    jobs = [engine.submit(JobRequest(f"{n}.mp4", title=f"Number {n}")).id for n in range(4)]
    bench.wait_begun()
    engine.cancel(jobs[2])
    engine.resume(jobs[2])  # now the last of the queue
    killed = root.with_name("killed")
    shutil.copytree(root, killed)
    (killed / jobs[0] / ".result.0123abcd.mp4").write_bytes(b"half")
    before = {status.id: status for status in engine.jobs()}
    other = Bench()
    again = JobEngine(killed, other)
    try:
        assert [status.id for status in again.jobs()] == [*jobs[::-1], dropped]
        states = {status.id: status for status in again.jobs()}
        assert states[jobs[0]].state is State.FAILED
        assert "Resume it" in states[jobs[0]].message
        assert states[jobs[0]].version > before[jobs[0]].version
        assert states[jobs[0]].title == "Number 0"
        assert not (killed / jobs[0] / ".result.0123abcd.mp4").exists()
        assert states[dropped].state is State.CANCELLED
        other.gate.set()
        again.start()
        for job in jobs[1:]:
            assert ended(again, job).state is State.DONE
        assert other.ran == ["1.mp4", "3.mp4", "2.mp4"]
        assert ended(again, again.resume(jobs[0]).id).state is State.DONE
    finally:
        again.close()
    assert not caplog.records


@pytest.mark.parametrize("damage", ["no status", "no request", "status", "request", "copied"])
def test_what_cannot_be_read_is_named_and_left_alone(
    engine: JobEngine, bench: Bench, root: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = (engine.submit(JobRequest(name)).id for name in ("good.mp4", "bad.mp4"))
    engine.close()
    folder = root / bad
    if damage == "copied":
        folder.rename(root / ("0" * 16))
        folder = root / ("0" * 16)
    elif damage.startswith("no "):
        (folder / f"{damage[3:]}.json").unlink()
    else:
        (folder / f"{damage}.json").write_text('{"state": "flying", "settings": {"x": 1}}')
    files = {path: path.read_bytes() for path in folder.iterdir()}
    with caplog.at_level(logging.WARNING, "fresco"):
        again = JobEngine(root, bench)
    try:
        assert [status.id for status in again.jobs()] == [good]
        assert str(folder) in caplog.text
        assert {path: path.read_bytes() for path in folder.iterdir()} == files
    finally:
        again.close()


def test_foreign_files_under_the_root_are_not_touched(engine: JobEngine, root: Path) -> None:
    engine.submit(JobRequest("a.mp4"))
    (root / "notes.txt").write_text("mine")
    (root / ("a" * 16)).write_text("a file")
    engine.close()
    again = JobEngine(root, Bench())
    try:
        assert len(again.jobs()) == 1
        assert (root / "notes.txt").read_text() == "mine"
    finally:
        again.close()


def test_the_second_engine_lists_but_does_not_run(
    engine: JobEngine, bench: Bench, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine.start()
    running = engine.submit(JobRequest("a.mp4")).id
    bench.wait_begun()
    queued = engine.submit(JobRequest("b.mp4")).id
    other = Bench()
    second = JobEngine(root, other)
    second.start()
    assert "Another program runs the jobs" in caplog.text
    assert [status.id for status in second.jobs()] == [queued, running]
    assert second.status(running).state is State.RUNNING  # and was not called interrupted
    calls: list[Callable[[], object]] = [
        lambda: second.submit(JobRequest("c.mp4")), lambda: second.cancel(running),
        lambda: second.resume(running), lambda: second.delete(queued), second.new_folder,
    ]
    for call in calls:
        with pytest.raises(JobConflictError, match="Another program"):
            call()
    version = second.status(queued).version
    bench.gate.set()
    assert second.wait(queued, version, PATIENCE).version > version
    assert ended(second, queued).state is State.DONE
    # Once the first has ended, the second takes over without being asked.
    engine.close()
    other.gate.set()
    assert ended(second, second.submit(JobRequest("c.mp4")).id).state is State.DONE
    assert other.ran == ["c.mp4"]
    second.close()


def test_a_deletion_removes_its_own_folder_alone(
    engine: JobEngine, bench: Bench, root: Path, tmp_path: Path
) -> None:
    source = tmp_path / "a.mp4"
    source.write_bytes(b"video")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.png").write_bytes(b"kept")
    first, second, third = (engine.submit(JobRequest(str(source))).id for _ in range(3))
    (root / first / "workspace").mkdir()
    (root / first / "workspace" / "link").symlink_to(outside, target_is_directory=True)
    engine.delete(first)
    assert not (root / first).exists()
    assert source.read_bytes() == b"video"
    assert (outside / "kept.png").read_bytes() == b"kept"
    with pytest.raises(UnknownJobError):
        engine.status(first)
    bench.gate.set()
    engine.start()
    assert ended(engine, third).state is State.DONE
    assert len(bench.ran) == 2  # the deleted one never ran
    engine.delete(third)
    assert [status.id for status in engine.jobs()] == [second]
    assert sorted(p.name for p in root.iterdir() if len(p.name) == 16) == [second]


def test_an_interrupted_deletion_is_finished_at_the_next_start(
    engine: JobEngine, root: Path
) -> None:
    job = engine.submit(JobRequest("a.mp4")).id
    engine.close()
    (root / job).rename(root / f".deleted-{job}")
    again = JobEngine(root, Bench())
    assert again.jobs() == ()
    assert not (root / f".deleted-{job}").exists()
    again.close()


def test_statuses_on_disk_are_whole_whenever_they_are_read(
    engine: JobEngine, bench: Bench, root: Path
) -> None:
    def busy(request: JobRequest, folder: Path, progress: Progress) -> Outcome:
        for name in range(60):
            with progress.stage(f"stage {name}", 50) as stage:
                for _ in range(50):
                    stage.advance(message="x" * 500)
        return NOTHING

    engine.close()
    engine = JobEngine(root, busy)
    job = engine.submit(JobRequest("a.mp4")).id
    path = root / job / "status.json"
    seen: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append(load_status(json.loads(path.read_text())).version)

    reader = threading.Thread(target=read)
    reader.start()
    engine.start()
    assert ended(engine, job).state is State.DONE
    stop.set()
    reader.join(PATIENCE)
    assert not reader.is_alive()
    assert seen == sorted(seen)
    assert len(set(seen)) > 20
    assert load_status(on_disk(root, job)) == engine.status(job)
    engine.close()


def test_uploaded_keyframes_become_the_jobs_own(
    engine: JobEngine, bench: Bench, root: Path
) -> None:
    folder = engine.new_folder()
    unused = engine.new_folder()
    (folder / "000000.png").write_bytes(b"key")
    job = engine.submit(JobRequest("a.mp4", Goal.PROPAGATION, own_keys=str(folder))).id
    keys = Path(engine.request(job).own_keys)
    assert keys.is_relative_to(engine.folder(job))
    assert (keys / "000000.png").read_bytes() == b"key"
    assert not folder.exists()
    bench.gate.set()
    engine.start()
    ended(engine, job)
    changed = engine.new_folder()
    (changed / "000001.png").write_bytes(b"other")
    request = dataclasses.replace(engine.request(job), own_keys=str(changed))
    engine.resume(job, request)
    assert (Path(engine.request(job).own_keys) / "000001.png").read_bytes() == b"other"
    ended(engine, job)
    engine.close()
    again = JobEngine(root, bench)
    assert not unused.exists()
    assert again.request(job) == engine.request(job)
    again.close()


def test_what_was_half_written_goes_and_nothing_else(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    space = store.folder("job") / "workspace"
    space.mkdir(parents=True)
    whole = [store.folder("job") / name for name in (
        "result.mp4", "status.json", ".fresco-keys.json", "workspace/000001.png", "log.txt",
    )]
    parts = [name_part(path, tag) for path, tag in zip(
        whole, ("4711.part", "0a1b2c3d", "00ff00ff", "12345678", "1.part"), strict=True
    )]
    old = [space / ".000002.0a1b2c3d.png", store.folder("job") / ".result.99.part.mp4"]
    for path in (*whole, *parts, *old):
        path.touch()
    store.tidy_job("job", ran=True)
    assert all(path.exists() for path in whole)
    assert not any(path.exists() for path in (*parts, *old))


def test_what_was_half_written_of_a_job_that_did_not_run_goes_at_the_next_start(
    engine: JobEngine, root: Path
) -> None:
    job = engine.submit(JobRequest("a.mp4")).id
    engine.close()
    part = name_part(root / job / "status.json", "0a1b2c3d")
    part.touch()
    again = JobEngine(root, Bench())
    assert again.status(job).state is State.QUEUED
    assert not part.exists()
    again.close()


def write_film(folder: Path) -> Outcome:
    (folder / "result.mp4").write_bytes(b"film")
    return Outcome(folder / "result.mp4", {}, None, None, ("A note.",))


def test_a_result_stays_until_there_is_another(
    engine: JobEngine, bench: Bench, root: Path
) -> None:
    """Whatever a later run comes to, and over a restart; it is told that it is an earlier one."""
    bench.act = write_film
    bench.gate.set()
    engine.start()
    request = JobRequest("a.mp4")
    job = engine.submit(request).id
    status = ended(engine, job)
    assert (status.notes, status.result) == (("A note.",), "new")
    film = root / job / "result.mp4"
    seen: list[tuple[Path | None, bool, str]] = []

    def look(folder: Path) -> Outcome:
        outcome = engine.outcome(job)
        seen.append((outcome.output, outcome.earlier, engine.status(job).result))
        return NOTHING

    def fail(folder: Path) -> Outcome:
        look(folder)
        raise VideoError("a.mp4 is gone; put it back.")

    for number, act in enumerate((look, fail)):
        bench.act = act
        engine.resume(job, dataclasses.replace(request, preview=2 + number))
        status = ended(engine, job)
        assert seen.pop() == (film, True, "earlier")
        assert (status.result, engine.outcome(job).output) == ("earlier", film)
    engine.close()
    again = JobEngine(root, bench)
    assert (again.status(job).result, again.outcome(job).output) == ("earlier", film)
    bench.act = write_film
    again.start()
    again.resume(job)
    assert ended(again, job).result == "new"
    assert not again.outcome(job).earlier
    again.close()


def test_a_result_of_version_0_1_is_known(engine: JobEngine, bench: Bench, root: Path) -> None:
    bench.act = write_film
    bench.gate.set()
    engine.start()
    job = engine.submit(JobRequest("a.mp4")).id
    ended(engine, job)
    engine.close()
    for name, added in (("status.json", "result"), ("outcome.json", "earlier")):
        values = json.loads((root / job / name).read_text())
        del values[added]
        (root / job / name).write_text(json.dumps(values))
    again = JobEngine(root, bench)
    assert again.status(job).result == "new"
    again.close()


def test_a_root_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    engine = JobEngine(tmp_path / "file" / "jobs", Bench())
    engine.start()
    assert engine.jobs() == ()
    with pytest.raises(JobConflictError, match="cannot be written"):
        engine.submit(JobRequest("a.mp4"))
    engine.close()


def test_a_submission_that_cannot_be_written_leaves_nothing(
    engine: JobEngine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: object) -> None:
        raise WorkspaceError(f"{path} cannot be written: the disk is full.")

    monkeypatch.setattr("fresco.server.jobs.store.write_json", full)
    with pytest.raises(WorkspaceError, match="disk is full"):
        engine.submit(JobRequest("a.mp4"))
    assert engine.jobs() == ()
    assert [path.name for path in root.rglob("*")] == ["lock", ".incoming"]


def test_a_job_whose_status_cannot_be_written_still_ends(
    engine: JobEngine, bench: Bench, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = engine.submit(JobRequest("a.mp4")).id

    def full(path: Path, value: object) -> None:
        raise WorkspaceError(f"{path} cannot be written: the disk is full.")

    monkeypatch.setattr("fresco.server.jobs.store.write_json", full)
    bench.gate.set()
    engine.start()
    status = ended(engine, job)
    assert status.state is State.FAILED
    assert "disk is full" in status.message
    assert "was not written" in caplog.text
