"""Folders of jobs that somebody edited, damaged or made: the others are listed and run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from fresco.server.jobs import store as store_module
from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.job import JobRequest, JobStatus, State, clean_title, load_request
from fresco.server.jobs.runner import find_keyframes
from tests.helpers.job_bench import Bench, ended

STATUS_EDITS: list[dict[str, Any]] = [
    {"created": "yesterday"}, {"created": None}, {"created": 1e300}, {"created": float("nan")},
    {"version": "x"}, {"version": -1}, {"version": 2.5}, {"title": ["a"]}, {"message": {}},
    {"notes": 7}, {"notes": [1]}, {"notes": "text"[:0] or None}, {"done": None}, {"total": "4"},
    {"seconds_left": []}, {"started": "x"}, {"ended": True}, {"result": "stolen"},
    {"state": []}, {"goal": {}}, {"stage": 1}, {"id": 5}, {"unknown": 1},
]


def make_two(engine: JobEngine) -> tuple[str, str]:
    good, bad = (engine.submit(JobRequest(name)).id for name in ("good.mp4", "bad.mp4"))
    engine.close()
    return good, bad


def require_good_alone(root: Path, good: str, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.gate.set()
    with caplog.at_level(logging.WARNING, "fresco"):
        again = JobEngine(root, bench)
    try:
        assert [status.id for status in again.jobs()] == [good]
        again.start()
        assert ended(again, good).state is State.DONE
        new = again.submit(JobRequest("new.mp4")).id
        assert again.jobs()[0].id == new
        assert ended(again, new).state is State.DONE
    finally:
        again.close()


@pytest.mark.parametrize("edit", STATUS_EDITS, ids=str)
def test_an_odd_status_is_left_aside(
    engine: JobEngine, root: Path, edit: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = make_two(engine)
    path = root / bad / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    require_good_alone(root, good, caplog)


@pytest.mark.parametrize("name", ["status.json", "request.json"])
@pytest.mark.parametrize("text", ["", "[", "[]", "3", "[" * 100_000, "\x00\xff", '{"a": 1}'])
def test_a_file_that_is_none_is_left_aside(
    engine: JobEngine, root: Path, name: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = make_two(engine)
    (root / bad / name).write_text(text)
    require_good_alone(root, good, caplog)


@pytest.mark.parametrize("name", ["status.json", "request.json"])
def test_a_folder_in_place_of_a_file_is_left_aside(
    engine: JobEngine, root: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = make_two(engine)
    (root / bad / name).unlink()
    (root / bad / name).mkdir()
    require_good_alone(root, good, caplog)


def outcome_of(engine: JobEngine, root: Path, text: str) -> Any:
    job = engine.submit(JobRequest("a.mp4")).id
    (root / job / "result.mp4").write_bytes(b"video")
    (root / job / "outcome.json").write_text(text)
    return engine.outcome(job)


@pytest.mark.parametrize("name", [
    "/etc/passwd", "../secret.txt", "link.mp4", "x/../../secret.txt", "\x00", 7, ["result.mp4"],
    {}, True, ".", "", "absent.mp4",
])
def test_an_outcome_names_only_files_of_its_job(
    engine: JobEngine, root: Path, name: object
) -> None:
    root.mkdir(exist_ok=True)
    (root / "secret.txt").write_text("mine")
    text = json.dumps({"output": name, "report": name, "comparison": name})
    job = engine.submit(JobRequest("a.mp4")).id
    (root / job / "link.mp4").symlink_to(root / "secret.txt")
    (root / job / "outcome.json").write_text(text)
    found = engine.outcome(job)
    assert (found.output, found.report, found.comparison) == (None, None, None)


@pytest.mark.parametrize("text", [
    '{"output": "result.mp4", "notes": 5, "earlier": "no"}', '{"output": "result.mp4"}',
])
def test_odd_notes_of_an_outcome_count_as_none(engine: JobEngine, root: Path, text: str) -> None:
    found = outcome_of(engine, root, text)
    assert found.output is not None
    assert (found.notes, found.earlier) == ((), False)


@pytest.mark.parametrize("text", ["[]", "7", "[" * 100_000, ""])
def test_an_odd_outcome_is_none(engine: JobEngine, root: Path, text: str) -> None:
    assert outcome_of(engine, root, text).output is None


@pytest.mark.parametrize("plan", [
    [], {"folder": 5, "keyframes": [0]}, {"folder": "..", "keyframes": [0]},
    {"folder": "/etc", "keyframes": [0]}, {"folder": "../..", "keyframes": [0]},
    {"folder": "keys", "keyframes": 5}, {"folder": "keys", "keyframes": ["0"]},
    {"folder": "keys", "keyframes": [-1]}, {"folder": "keys", "keyframes": [True]},
    {"folder": "keys", "keyframes": [10**30]}, {"folder": "away", "keyframes": [0]},
    {"keyframes": [0]}, {"folder": "", "keyframes": [0]},
])
def test_a_plan_names_only_keyframes_of_its_job(tmp_path: Path, plan: object) -> None:
    space = tmp_path / "job" / "workspace"
    (tmp_path / "outside").mkdir()
    for place in (space / "keys", tmp_path / "outside", space, tmp_path / "job", tmp_path):
        place.mkdir(parents=True, exist_ok=True)
        (place / "000000.png").write_bytes(b"image")
    (space / "away").symlink_to(tmp_path / "outside")
    (space / "plan.json").write_text(json.dumps({"folder": "keys", "keyframes": [0]}))
    assert list(find_keyframes(tmp_path / "job")) == [0]
    (space / "plan.json").write_text(json.dumps(plan))
    assert find_keyframes(tmp_path / "job") == {}


def test_the_worker_survives_what_fails_around_a_job(
    engine: JobEngine, bench: Bench, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench.gate.set()
    first, second = (engine.submit(JobRequest(name)).id for name in ("a.mp4", "b.mp4"))
    result = store_module.JobStore.result

    def fail(self: store_module.JobStore, job: str) -> str:
        if job == first and bench.ran == ["a.mp4"]:
            raise ZeroDivisionError("not foreseen")
        return result(self, job)

    monkeypatch.setattr(store_module.JobStore, "result", fail)
    engine.start()
    status = ended(engine, first)
    assert status.state is State.FAILED
    assert "not foreseen" in status.message
    assert ended(engine, second).state is State.DONE
    caplog.clear()  # the error was logged, as it should be


def test_who_only_looks_on_reads_what_changed_alone(
    engine: JobEngine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [engine.submit(JobRequest(f"{n}.mp4")).id for n in range(5)]
    reads: list[object] = []

    def counted(values: Any) -> JobRequest:
        reads.append(values)
        return load_request(values)

    monkeypatch.setattr(store_module, "load_request", counted)
    second = JobEngine(root, Bench())
    try:
        assert len(second.jobs()) == len(reads) == 5
        reads.clear()
        assert len(second.jobs()) == 5
        assert not reads
        engine.cancel(jobs[2])
        engine.delete(jobs[3])
        states = {status.id: status.state for status in second.jobs()}
        assert states[jobs[2]] is State.CANCELLED
        assert jobs[3] not in states
        assert len(reads) == 1
    finally:
        second.close()


def test_titles_hold_nothing_that_turns_the_text_around(engine: JobEngine, root: Path) -> None:
    turned = "holi\u202egpj.4pm\u2066\u200f\x07\ud800"
    assert clean_title(turned) == "holigpj.4pm"
    assert clean_title("\U0001f468\u200d\U0001f33e ü") == "\U0001f468\u200d\U0001f33e ü"
    titled: JobStatus = engine.submit(JobRequest("a.mp4", title=turned))
    named = engine.submit(JobRequest(f"/x/{turned[:8]}.mp4"))
    assert titled.title == "holigpj.4pm"
    assert not set("\u202e\u2066\u200f") & set(named.title)
    path = root / titled.id / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"title": "a\u202eb"}))
    second = JobEngine(root, Bench())  # as a program that finds an old job
    try:
        assert second.status(titled.id).title == "ab"
    finally:
        second.close()
