"""Nobody fills the queue or the disk of a server: what would is refused before the work."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from fresco.server import space
from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.job import Goal, JobRequest, State
from fresco.server.jobs.runner import count_bytes, make_work
from fresco.server.ports import Limits
from fresco.server.space import NoRoomError
from fresco.video.reader import open_source
from tests.helpers.api_server import ApiServer, make_environment, serving, small_clip
from tests.helpers.job_bench import ended
from tests.helpers.job_environment import TinyEnvironment, tiny_settings

LIMITS = Limits(waiting_jobs=2, free_megabytes=1000)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> TinyEnvironment:
    return make_environment(tmp_path_factory, LIMITS)


@pytest.fixture
def server(tmp_path: Path, environment: TinyEnvironment) -> Iterator[ApiServer]:
    """Its jobs stay in the queue."""
    with serving(tmp_path / "root", environment, idle=True) as server:
        yield server


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return small_clip(tmp_path / "clip.mp4", 4)


def leave_free(monkeypatch: pytest.MonkeyPatch, free: int | None) -> None:
    monkeypatch.setattr(space, "find_free", lambda folder: free)


def test_as_many_jobs_wait_as_the_setting_says(server: ApiServer, clip: Path) -> None:
    service = server.service
    jobs = [service.submit(JobRequest(str(clip), title=f"{n}")).id for n in range(2)]
    with pytest.raises(NoRoomError, match="2 jobs wait, as many as this server lets wait"):
        service.submit(JobRequest(str(clip), title="3"))
    again, new = service.submit_once(JobRequest(str(clip), title="1"))
    assert (again.id, new) == (jobs[1], False)
    assert "2 jobs wait" in server.refused(503, "POST", "jobs", json={
        "path": str(clip), "settings": {"sampling": {"prompt": "x"}},
    })
    service.engine.cancel(jobs[0])
    service.submit(JobRequest(str(clip), title="3"))
    with pytest.raises(NoRoomError, match="2 jobs wait"):
        service.resume(jobs[0])
    assert len(service.engine.jobs()) == 3


def test_none_of_it_where_the_limits_are_off(
    server: ApiServer, clip: Path, monkeypatch: pytest.MonkeyPatch, environment: TinyEnvironment
) -> None:
    off = dataclasses.replace(LIMITS, waiting_jobs=0, free_megabytes=0)
    monkeypatch.setattr(environment, "limits", off)
    leave_free(monkeypatch, 10_000_000)
    for number in range(4):
        server.service.submit(JobRequest(str(clip), title=f"{number}"))
    server.upload(clip)


def test_a_full_disk_takes_neither_jobs_nor_uploads(
    server: ApiServer, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_free(monkeypatch, 999_999_999)
    with pytest.raises(NoRoomError, match=r"A new job finds no room: .* 1\.0 GB free, of which"):
        server.service.submit(JobRequest(str(clip)))
    with clip.open("rb") as file:
        said = server.refused(503, "POST", "videos", files={"video": ("clip.mp4", file)})
    assert said.startswith("The upload finds no room")
    assert not list(server.service.folders[1].glob("*"))
    leave_free(monkeypatch, None)  # a system that does not say
    server.upload(clip)
    server.service.submit(JobRequest(str(clip)))


def test_a_job_that_needs_more_than_there_is_ends_before_the_work(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, environment: TinyEnvironment
) -> None:
    monkeypatch.setattr(environment, "opened", [])
    settings = tiny_settings()
    request = JobRequest(str(clip), settings=settings)
    with open_source(clip) as source:
        need = count_bytes(request, source.info)
    assert need == 4 * (64 * 64 * 2 + 64 * 64 // 4)
    compared = tiny_settings({"output": {"compare": True}})
    with open_source(clip) as source:
        assert count_bytes(dataclasses.replace(request, settings=compared), source.info) == 3 * need
        preview = dataclasses.replace(request, goal=Goal.PREVIEW)
        assert count_bytes(preview, source.info) == 64 * 64 * 2
    engine = JobEngine(tmp_path / "jobs", make_work(environment))
    try:
        engine.start()
        leave_free(monkeypatch, 1_000_000_000 + need - 1)
        job = engine.submit(request).id
        status = ended(engine, job)
        assert status.state is State.FAILED
        assert "The job finds no room" in status.message
        assert environment.opened == []
        leave_free(monkeypatch, 1_000_000_000 + need)
        engine.resume(job)
        assert ended(engine, job, patience=240).state is State.DONE
    finally:
        engine.close()


def test_the_sentence_names_what_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    leave_free(monkeypatch, 3_000_000_000)
    with pytest.raises(NoRoomError, match=r"It needs about 2\.5 GB, and .* 3\.0 GB free, of which "
                       r"1\.0 GB stay so"):
        space.require_free(tmp_path, 1000, 2_500_000_000, what="It")
