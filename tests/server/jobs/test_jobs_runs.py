"""Jobs with a real model: every goal, what is reused, what is refused, cancelled anywhere."""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fresco.control import ControlUnit
from fresco.errors import SettingsError
from fresco.hosts.options import HostOptions
from fresco.options import from_dict
from fresco.progress import StageStatus
from fresco.server.jobs import runner
from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.job import Goal, JobRequest, JobStatus, State
from fresco.server.jobs.runner import Outcome, make_work
from fresco.server.ports import Limits
from fresco.server.service import Service, open_service
from fresco.video.reader import open_source
from fresco.workspace import Workspace, read_image, write_image
from tests.helpers.clips import ClipOptions, moving_texture, sound_packets, write_clip
from tests.helpers.job_bench import ended, made, watched
from tests.helpers.job_environment import BLOCKS, CONTROL, TinyEnvironment, tiny_settings
from tests.helpers.webui.watcher import traces

FRAMES, KEYS = 8, (0, 2, 4, 7)
PATIENCE = 120


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, moving_texture(FRAMES, 64, 64), ClipOptions(sound=("aac",)))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> TinyEnvironment:
    return TinyEnvironment(tmp_path_factory.getbasetemp() / "job-models")


@pytest.fixture(scope="module")
def request_all(clip: Path) -> JobRequest:
    settings = tiny_settings({
        "sampling": {"strength": 0.25},  # one call of the model
        "keyframes": {"keys": ",".join(map(str, KEYS))}, "output": {"measures": True},
    })
    return JobRequest(str(clip), Goal.ALL, settings)


@pytest.fixture(scope="module")
def request_plain(request_all: JobRequest) -> JobRequest:
    """Without measures."""
    settings = from_dict({"output": {"measures": False}}, request_all.settings)
    return dataclasses.replace(request_all, settings=settings)


@pytest.fixture
def engine(tmp_path: Path, environment: TinyEnvironment) -> Iterator[JobEngine]:
    engine = JobEngine(tmp_path / "jobs", make_work(environment))
    engine.start()
    yield engine
    engine.close()


@dataclass(frozen=True)
class Whole:
    """A job that nobody disturbed, and the engine that keeps it."""

    status: JobStatus
    outcome: Outcome
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, environment: TinyEnvironment, request_all: JobRequest
) -> Whole:
    engine = JobEngine(tmp_path_factory.mktemp("whole"), make_work(environment))
    engine.start()
    status = ended(engine, engine.submit(request_all).id, PATIENCE)
    engine.close()
    return Whole(status, engine.outcome(status.id), made(engine.folder(status.id)))


def done(engine: JobEngine, status: JobStatus) -> JobStatus:
    status = ended(engine, status.id, PATIENCE)
    assert status.state is State.DONE, status.message
    return status


def failed(engine: JobEngine, status: JobStatus) -> str:
    status = ended(engine, status.id, PATIENCE)
    assert status.state is State.FAILED
    return status.message


def times(folder: Path) -> dict[str, int]:
    """When each image of a workspace was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns
            for path in (folder / "workspace").rglob("*.png")}


def test_a_job_makes_the_film_with_its_sound_and_report(whole: Whole, clip: Path) -> None:
    assert whole.status.state is State.DONE
    assert whole.status.notes == whole.outcome.notes != ()
    assert whole.outcome.output is not None
    assert whole.outcome.report is not None
    assert whole.outcome.comparison is None
    with open_source(whole.outcome.output) as film:
        assert film.info.frames == FRAMES
    assert sound_packets(whole.outcome.output) == sound_packets(clip)
    assert tuple(whole.outcome.keys) == KEYS
    for path in whole.outcome.keys.values():
        assert read_image(path) is not None


def test_preview_then_keyframes_then_all_reuse_what_there_is(
    engine: JobEngine, request_all: JobRequest, whole: Whole
) -> None:
    asked = dataclasses.replace(request_all, goal=Goal.PREVIEW, preview=3)
    job = done(engine, engine.submit(asked)).id
    folder = engine.folder(job)
    assert tuple(engine.outcome(job).keys) == KEYS[:3]  # the first batch
    assert engine.outcome(job).output is None
    for goal in (Goal.KEYFRAMES, Goal.ALL):
        before = times(folder)
        done(engine, engine.resume(job, dataclasses.replace(request_all, goal=goal)))
        assert before.items() <= times(folder).items()
        assert tuple(engine.outcome(job).keys) == KEYS
        assert (engine.outcome(job).output is not None) == (goal is Goal.ALL)
    exported = {name for name in made(folder) if name.startswith("result-keys")}
    assert exported
    assert {n: d for n, d in made(folder).items() if n not in exported} == whole.files


def test_one_keyframe_again_leaves_all_others(
    engine: JobEngine, request_plain: JobRequest
) -> None:
    job = done(engine, engine.submit(request_plain)).id
    folder, before = engine.folder(job), made(engine.folder(job))
    again = dataclasses.replace(request_plain, goal=Goal.KEYFRAME, frame=4, frame_seed=99)
    done(engine, engine.resume(job, again))
    after = made(folder)
    key = str(engine.outcome(job).keys[4].relative_to(folder))
    assert before.keys() <= after.keys(), "frames stay until they are made again"
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    assert changed == {key}
    assert tuple(engine.outcome(job).keys) == KEYS
    # The video is of the old keyframe, and stays until there is one of the new.
    outcome = engine.outcome(job)
    assert (outcome.output, outcome.earlier) == (folder / "result.mp4", True)
    assert after["result.mp4"] == before["result.mp4"]
    images = times(folder)
    done(engine, engine.resume(job, request_plain))
    again_made = {Path(name).name for name, _ in images.items() - times(folder).items()}
    assert again_made == {"000003.png", "000005.png", "000006.png"}
    redone = made(folder)
    assert {n for n in redone if redone[n] != before.get(n)} >= {"result.mp4", key}
    assert redone[key] == after[key]
    assert not engine.outcome(job).earlier
    done(engine, engine.resume(job, again))
    assert made(folder)[key] == after[key]  # the same seed, the same image


@pytest.mark.parametrize(("frame", "words"), [(3, "the nearest is 2"), (4, "keyframes first")])
def test_only_a_translated_keyframe_is_translated_again(
    engine: JobEngine, request_all: JobRequest, frame: int, words: str
) -> None:
    request = dataclasses.replace(request_all, goal=Goal.KEYFRAME, frame=frame)
    assert words in failed(engine, engine.submit(request))


def test_another_codec_takes_the_place_of_the_video_before(
    engine: JobEngine, clip: Path, tmp_path: Path
) -> None:
    write_image(tmp_path / "keys" / "0.png", np.full((64, 64, 3), 90, np.uint8))
    values = {"propagation": {"method": "flow"}, "output": {"codec": "vp9"}}
    request = JobRequest(
        str(clip), Goal.PROPAGATION, tiny_settings(values), own_keys=str(tmp_path / "keys")
    )
    job = done(engine, engine.submit(request)).id
    assert engine.outcome(job).output == engine.folder(job) / "result.webm"
    other = from_dict({"output": {"codec": "ffv1"}}, request.settings)
    done(engine, engine.resume(job, dataclasses.replace(request, settings=other)))
    assert engine.outcome(job).output == engine.folder(job) / "result.mkv"
    assert [path.name for path in engine.folder(job).glob("result.*")] == ["result.mkv"]


def test_own_keyframes_of_two_videos_of_one_name_do_not_meet(
    engine: JobEngine, environment: TinyEnvironment, tmp_path: Path
) -> None:
    opened = len(environment.opened)
    jobs: list[tuple[str, Path]] = []
    for place, seed in (("one", 1), ("two", 2)):
        frames = moving_texture(FRAMES, 64, 64, seed=seed)
        (tmp_path / place).mkdir()
        source = write_clip(tmp_path / place / "clip.mp4", frames)
        keys = engine.new_folder()
        for number in (0, FRAMES - 1):  # of any size
            inverted = np.subtract(255, frames[number], dtype=np.uint8)
            write_image(keys / f"my_{number}.png", inverted.repeat(2, axis=1))
        request = JobRequest(
            str(source), Goal.PROPAGATION, tiny_settings(), own_keys=str(keys)
        )
        jobs.append((engine.submit(request).id, source))
    assert len({status.title for status in engine.jobs()}) == 1
    for job, source in jobs:
        done(engine, engine.status(job))
        output = engine.outcome(job).output
        assert output is not None
        assert tuple(engine.outcome(job).keys) == (0, FRAMES - 1)
        with open_source(output) as film, open_source(source) as original:
            errors = [np.abs(a.astype(int) - (255 - b)).mean()
                      for a, b in zip(film.frames(), original.frames(), strict=True)]
        assert max(errors) < 12
    engine.delete(jobs[0][0])
    assert engine.outcome(jobs[1][0]).output is not None
    assert len(environment.opened) == opened  # no model is needed


def test_sound_that_cannot_be_kept_is_a_note_of_the_job(
    tmp_path: Path, engine: JobEngine
) -> None:
    how = ClipOptions(codec="mpeg4", options={"b": "1M"}, sound=("adpcm_ima_wav",))
    source = write_clip(tmp_path / "clip.avi", moving_texture(FRAMES, 64, 64), how)
    data = bytearray(source.read_bytes())
    place = data.index(b"strf", data.index(b"auds")) + 8
    data[place:place + 2] = b"\x34\xf2"  # the number of no codec
    source.write_bytes(data)
    keys = engine.new_folder()
    for number in (0, FRAMES - 1):
        write_image(keys / f"{number}.png", np.zeros((64, 64, 3), np.uint8))
    request = JobRequest(str(source), Goal.PROPAGATION, tiny_settings(), own_keys=str(keys))
    job = engine.submit(request).id
    done(engine, engine.status(job))
    notes = engine.status(job).notes
    assert any(note.startswith("The sound is left out") for note in notes)
    output = engine.outcome(job).output
    assert output is not None
    with open_source(output) as film:
        assert (film.info.frames, film.info.has_sound) == (FRAMES, False)


def test_cancelled_at_every_stage_nothing_stays_and_it_ends_with_the_same_bytes(
    tmp_path: Path, environment: TinyEnvironment, request_all: JobRequest, whole: Whole
) -> None:
    unets = [host._parts.unet for host in environment._hosts.values()]
    before = [traces(unet) for unet in unets]
    stopped: list[str] = []

    def stop(folder: Path, status: StageStatus) -> None:
        # In the middle of a sampling too, with the guide installed.
        place = status.stage if status.done == 0 else f"{status.stage} later"
        if place not in stopped and not status.finished:
            stopped.append(place)
            engine.cancel(folder.name)

    threads = set(threading.enumerate())
    engine = JobEngine(tmp_path, watched(make_work(environment), stop))
    job = engine.submit(request_all).id
    engine.start()
    while (status := ended(engine, job, PATIENCE)).state is State.CANCELLED:
        assert [traces(unet) for unet in unets] == before
        left = set(threading.enumerate()) - threads
        assert {thread.name for thread in left} == {"fresco-jobs"}
        with Workspace(engine.folder(job) / "workspace"):
            pass  # the lock is free
        engine.resume(job)
    assert status.state is State.DONE
    assert {"scan", "keyframes", "batch 1", "batch 1 later", "batch 2", "propagate", "write",
            "write later", "measure"} <= set(stopped)
    assert made(engine.folder(job)) == whole.files
    engine.close()
    assert set(threading.enumerate()) == threads


def _gone(source: Path) -> None:
    source.unlink()


def _changed(source: Path) -> None:
    write_clip(source, moving_texture(FRAMES, 64, 64, seed=8))


@pytest.mark.parametrize(("harm", "words"), [(_gone, "does not exist"), (_changed, "has changed")])
def test_a_source_that_is_not_the_same_any_more_is_said(
    engine: JobEngine, request_all: JobRequest, clip: Path, tmp_path: Path,
    harm: Callable[[Path], None], words: str,
) -> None:
    source = tmp_path / "own.mp4"
    shutil.copy(clip, source)
    request = dataclasses.replace(request_all, source=str(source), goal=Goal.PREVIEW)
    job = done(engine, engine.submit(request)).id
    images = times(engine.folder(job))
    harm(source)
    further = dataclasses.replace(request, goal=Goal.KEYFRAMES)
    assert words in failed(engine, engine.resume(job, further))
    shutil.copy(clip, source)  # with another time, but the same bytes
    done(engine, engine.resume(job))
    assert images.items() <= times(engine.folder(job)).items()


@pytest.mark.parametrize("content", [b"", b"<html>no video</html>", None])
def test_a_source_that_cannot_be_read_fails_with_its_name(
    engine: JobEngine, request_all: JobRequest, clip: Path, tmp_path: Path, content: bytes | None
) -> None:
    source = tmp_path / "broken.mp4"
    source.write_bytes(clip.read_bytes()[:900] if content is None else content)
    request = dataclasses.replace(request_all, source=str(source))
    job = engine.submit(request)
    assert "broken.mp4" in failed(engine, job)
    shutil.copy(clip, source)  # mended: it was not yet the source to hold on to
    done(engine, engine.resume(job.id, dataclasses.replace(request, goal=Goal.PREVIEW)))


def test_a_film_is_checked_before_it_is_called_done(
    engine: JobEngine, request_plain: JobRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    translate = runner.translate

    def careless(source: Path, output: Path, *arguments: Any, **options: Any) -> Any:
        result = translate(source, output, *arguments, **options)
        harms.pop()(output)
        return result

    def short(output: Path) -> None:
        write_clip(output, moving_texture(FRAMES - 1, 64, 64))

    def cut(output: Path) -> None:
        os.truncate(output, output.stat().st_size // 2)

    monkeypatch.setattr(runner, "translate", careless)
    harms = [_gone, cut, short]
    job = engine.submit(request_plain)
    assert "holds 7 of 8 frames" in failed(engine, job)
    while harms:
        assert "result.mp4" in failed(engine, engine.resume(job.id))
        assert engine.outcome(job.id).output is None
    monkeypatch.setattr(runner, "translate", translate)
    done(engine, engine.resume(job.id))


@pytest.mark.parametrize(("limits", "words"), [
    (Limits(frames=FRAMES - 1), "has 8 frames; this server takes up to 7"),
    (Limits(resolution=63), "resolution is 64; this server takes up to 63"),
])
def test_limits_hold_when_a_job_is_submitted_and_resumed(
    tmp_path: Path, environment: TinyEnvironment, request_all: JobRequest, limits: Limits,
    words: str,
) -> None:
    strict = TinyEnvironment(environment.folder, limits)
    service = open_service(tmp_path, strict)
    try:
        with pytest.raises(SettingsError, match=words):
            service.submit(request_all)
        assert service.engine.jobs() == ()
        strict.limits = Limits()
        job = service.submit(request_all).id
        service.engine.cancel(job)
        strict.limits = limits
        ended(service.engine, job)
        opened = len(strict.opened)
        with pytest.raises(SettingsError, match=words):
            service.resume(job)
        assert service.engine.status(job).state is State.CANCELLED
        assert len(strict.opened) == opened
    finally:
        service.engine.close()


@pytest.fixture
def service(tmp_path: Path, environment: TinyEnvironment) -> Iterator[Service]:
    service = open_service(tmp_path, environment)
    yield service
    service.engine.close()


def test_a_job_keeps_the_model_it_was_given(service: Service, request_all: JobRequest) -> None:
    """What the host fills in is part of the job: resumed later, it is the same job."""
    request = dataclasses.replace(request_all, goal=Goal.PREVIEW)
    job = done(service.engine, service.submit(request)).id
    assert service.engine.request(job).host == HostOptions("tiny", "ddpm")
    for wrong, words in ((HostOptions("large"), "model is 'large'"),
                         (HostOptions(sampler="fast"), "sampler is 'fast'"),
                         (HostOptions(upscaler="fine"), "upscaler is 'fine'"),
                         (HostOptions(control=(ControlUnit("x"),)), "control.model is 'x'")):
        changed = dataclasses.replace(request, host=wrong)
        with pytest.raises(SettingsError, match=words):
            service.submit(changed)
        with pytest.raises(SettingsError, match=words):
            service.resume(job, changed)
    assert len(service.engine.jobs()) == 1
    assert service.engine.status(job).state is State.DONE


def test_an_upscaler_enlarges_what_is_carried(service: Service, request_all: JobRequest) -> None:
    settings = from_dict({"propagation": {"resolution": 128}, "output": {"source_size": False}},
                         request_all.settings)
    request = dataclasses.replace(
        request_all, settings=settings, host=HostOptions(upscaler=BLOCKS)
    )
    job = done(service.engine, service.submit(request)).id
    outcome, folder = service.engine.outcome(job), service.engine.folder(job) / "workspace"
    assert outcome.output is not None
    with open_source(str(outcome.output)) as video:
        assert min(video.info.width, video.info.height) == 128
    for number, path in outcome.keys.items():
        small, large = read_image(path), read_image(next(folder.glob(f"enlarged-*/{path.name}")))
        assert small is not None, number
        assert large is not None, number
        assert np.array_equal(large[::2, ::2], small)
        assert np.array_equal(large[1::2, 1::2], small)


def test_models_samplers_and_control_give_other_images(
    service: Service, request_all: JobRequest
) -> None:
    choices = [
        HostOptions(), HostOptions("tiny two"), HostOptions(sampler="euler"),
        HostOptions(control=(ControlUnit(CONTROL, "canny"),)),
    ]
    images: list[bytes] = []
    for choice in choices:
        request = dataclasses.replace(request_all, goal=Goal.PREVIEW, host=choice)
        job = done(service.engine, service.submit(request)).id
        images.append(service.engine.outcome(job).keys[0].read_bytes())
    assert len(set(images)) == len(choices)
