"""Every file of a job's folder in every state that an editor, a disk or a person may leave.

Whatever it is, the others are listed and run, no answer is a fault of the program, and a job that
runs again makes what it lacks or says in a sentence what is in its way. FRESCO_FAULTS=all runs it
again for every file and harm, FRESCO_FAULTS=50 for so many at random; without it, for a few.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.estimate import measure_latest
from fresco.server.jobs.job import JobRequest, State
from fresco.server.jobs.runner import make_work
from fresco.server.videos import VideoStore
from tests.helpers.api_server import (
    ApiServer,
    describe_video,
    make_environment,
    serving,
    small_clip,
)
from tests.helpers.faulty_files import choose_count
from tests.helpers.job_bench import Bench, ended
from tests.helpers.job_environment import TinyEnvironment, tiny_settings

SECRET = b"a secret of somebody else"
KEPT_BY_ENGINE = ("status.json", "request.json")
"""Read when a program starts; all others are read when somebody asks."""


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_another_type(path: Path) -> None:
    path.write_text("[3]")


def huge(path: Path) -> None:
    known = json.loads(path.read_text()) if path.suffix == ".json" else {}
    names = list(known) if isinstance(known, dict) and known else ["total"]
    path.write_text("{%s}" % ",".join(f'"{name}": 1{"0" * 4000}' for name in names))  # noqa: UP031


def foreign(path: Path) -> None:
    text = str(path.parent.parent / "secret.txt")
    names = ("output", "report", "comparison", "folder", "file", "path", "source", "own_keys")
    path.write_text(json.dumps(dict.fromkeys(names, text)))


def linked(path: Path) -> None:
    path.unlink()
    path.symlink_to(os.devnull)


def linked_to_a_secret(path: Path) -> None:
    path.unlink()
    path.symlink_to(find_secret(path))


def a_folder(path: Path) -> None:
    path.unlink()
    (path / "within").mkdir(parents=True)


def deep(path: Path) -> None:
    path.write_text('{"measures": ' + "[" * 50_000 + "]" * 50_000 + "}")


def nul(path: Path) -> None:
    path.write_bytes(bytes(300))


HARMS = (empty, truncated, of_another_type, huge, foreign, linked, linked_to_a_secret, a_folder,
         deep, nul)


def find_secret(path: Path) -> Path:
    return next(up / "secret.txt" for up in path.parents if (up / "secret.txt").exists())


@dataclass(frozen=True)
class Made:
    """A finished job, and where others like it are put."""

    folder: Path
    root: Path
    environment: TinyEnvironment

    @property
    def files(self) -> list[str]:
        """All of its files."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [str(path.relative_to(self.folder)) for path in paths]

    def put(self, root: Path) -> tuple[Path, Path]:
        """A good and another copy of the job in a root, each under an id of its own."""
        root.mkdir(parents=True, exist_ok=True)
        (root.parent / "secret.txt").write_bytes(SECRET)
        return self.copy(root / f"{1:016x}"), self.copy(root / f"{2:016x}")

    def mend(self, place: Path, name: str) -> None:
        """One file of a copy is as it was."""
        if (place / name).is_dir():
            shutil.rmtree(place / name)
        (place / name).unlink(missing_ok=True)
        shutil.copy(self.folder / name, place / name)

    def copy(self, place: Path) -> Path:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.folder, place)
        status = json.loads((place / "status.json").read_text())
        (place / "status.json").write_text(json.dumps(status | {"id": place.name}))
        return place


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    environment = make_environment(tmp_path_factory)
    folder = tmp_path_factory.mktemp("table")
    clip = small_clip(folder / "clip.mp4", frames=4)
    settings = tiny_settings({
        "sampling": {"strength": 0.25}, "keyframes": {"keys": "0,3"},
        "output": {"compare": True, "measures": True},
    })
    engine = JobEngine(folder / "jobs", make_work(environment))
    engine.start()
    job = engine.submit(JobRequest(str(clip), settings=settings)).id
    assert ended(engine, job, patience=240).state is State.DONE
    engine.close()
    return Made(folder / "jobs" / job, folder / "served", environment)


def make_cases(files: list[str]) -> list[tuple[str, Callable[[Path], None]]]:
    return [(name, harm) for name in files for harm in HARMS]


@pytest.fixture(scope="module")
def server(made: Made) -> Iterator[ApiServer]:
    made.put(made.root / "jobs")
    with serving(made.root, made.environment) as server:
        yield server


ASKED = {
    "outcome.json": ("", "/video", "/comparison", "/keyframes/0", "/report"), "stages.json": ("",),
    "log.txt": ("/log",), "result-report.json": ("/report",), "result.mp4": ("/video",),
    "result-comparison.mp4": ("/comparison",), "plan.json": ("/keyframes", "/keyframes/0"),
    "000000.png": ("/keyframes", "/keyframes/0"),
}
"""Files that are read when somebody asks, and the routes that read them."""


def test_no_file_of_a_job_is_a_fault_of_the_server(made: Made, server: ApiServer) -> None:
    good, bad = (f"{number:016x}" for number in (1, 2))
    folder = server.service.engine.folder(bad)
    cases = [case for case in make_cases(made.files) if Path(case[0]).name in ASKED]
    assert {Path(name).name for name, _ in cases} == set(ASKED)
    for name, harm in cases:
        harm(folder / name)
        for route in ASKED[Path(name).name]:
            answer = server.ask("GET", f"jobs/{bad}{route}")
            assert answer.status_code < 500, (name, harm.__name__, route, answer.text)
            assert SECRET not in answer.content, (name, harm.__name__, route)
        if name == "stages.json":
            assert measure_latest(server.service.engine).key >= 0, harm.__name__
        made.mend(folder, name)
    assert [status["id"] for status in server.json("GET", "jobs")["jobs"]] == [good, bad]


@pytest.mark.parametrize("name", KEPT_BY_ENGINE)
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_the_others_are_listed_and_run(
    made: Made, tmp_path: Path, name: str, harm: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    good, bad = made.put(tmp_path / "jobs")
    harm(bad / name)
    bench = Bench()
    bench.gate.set()
    with caplog.at_level(logging.WARNING, "fresco"):
        engine = JobEngine(tmp_path / "jobs", bench)
    try:
        assert [status.id for status in engine.jobs()] == [good.name]
        engine.start()
        assert ended(engine, engine.submit(JobRequest("new.mp4")).id).state is State.DONE
    finally:
        engine.close()


def test_a_harmed_job_runs_again(made: Made, tmp_path: Path) -> None:
    """To the same bytes, or it says what is in its way; and the next job runs."""
    cases = make_cases([name for name in made.files if name not in KEPT_BY_ENGINE])
    random.shuffle(cases)
    for number, (name, harm) in enumerate(cases[:choose_count(3)]):
        good, bad = made.put(tmp_path / str(number) / "jobs")
        for folder in (good, bad):
            (folder / "result.mp4").unlink()  # so that there is something to do
        if (bad / name).exists():
            harm(bad / name)
        case = f"{harm.__name__} {name}"
        engine = JobEngine(good.parent, make_work(made.environment))
        try:
            engine.start()
            for folder in (bad, good):
                engine.resume(folder.name)
            states = [ended(engine, folder.name, patience=240) for folder in (bad, good)]
        finally:
            engine.close()
        assert states[1].state is State.DONE, (case, states[1].message)
        if states[0].state is State.DONE:
            same = (made.folder / "result.mp4").read_bytes()
            assert (bad / "result.mp4").read_bytes() == same, case
            assert not (bad / "result.mp4").is_symlink(), case
        else:
            assert "fault of the program" not in states[0].message, case
            assert states[0].message.endswith("."), case
        assert find_secret(bad).read_bytes() == SECRET, case
        shutil.rmtree(tmp_path / str(number))


def test_facts_of_an_uploaded_video_may_be_anything(made: Made, tmp_path: Path) -> None:
    store = VideoStore(tmp_path / "videos", lambda: made.environment.limits)
    (tmp_path / "secret.txt").write_bytes(SECRET)
    clips = [small_clip(tmp_path / f"{n}.mp4", n) for n in (2, 3)]
    bad, good = (store.add(clip, clip.name) for clip in clips)
    path = bad.path.parent / "clip.json"
    text = path.read_text()
    facts = json.loads(text)
    for harm in HARMS:
        harm(path)
        assert store.list_videos() == (good,), harm
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.write_text(text)
    texts = [
        json.dumps(facts | {name: value}) for name in facts
        for value in (None, [], {}, -1, 10**400, "../../secret.txt", "\0", str(clips[0]))
    ] + [
        json.dumps(facts | {"info": facts["info"] | {name: value}}) for name in facts["info"]
        for value in (None, [], {}, -1, 0, 1e300, 10**400, "1/0", "nan", "x", ["1/0"], [[]], True)
    ]
    for text in texts:
        path.write_text(text)
        found = store.list_videos()
        assert good in found, text
        for video in found:
            assert video.path in (bad.path, good.path), text
            json.dumps(describe_video(video), allow_nan=False)
