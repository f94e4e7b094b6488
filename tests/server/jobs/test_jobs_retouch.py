"""A keyframe replaced: drafts at once, the segments beside it again, nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fresco.errors import SettingsError, VideoError
from fresco.run.inputs import Source
from fresco.server.frames import Layer, color_flow
from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.job import EARLIER_RESULT, NEW_RESULT, Goal, JobRequest, State
from fresco.server.jobs.segments import find_carried, list_judged, list_segments
from fresco.server.service import Service, open_service
from fresco.video.reader import open_source
from fresco.workspace import read_image, write_image
from tests.helpers.clips import moving_texture, write_clip
from tests.helpers.job_bench import ended
from tests.helpers.job_environment import TinyEnvironment, tiny_settings

FRAMES, KEYS = 13, (0, 4, 8, 12)
GREEN = np.full((90, 90, 3), (0, 200, 0), np.uint8)


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    return moving_texture(FRAMES, 64, 64)


@pytest.fixture
def service(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    environment = TinyEnvironment(tmp_path_factory.getbasetemp() / "job-models")
    opened = open_service(tmp_path / "service", environment)
    yield opened
    opened.engine.close()


@pytest.fixture
def own(tmp_path: Path, frames: NDArray[np.uint8]) -> Path:
    """Somebody's folder of keyframes."""
    for key in KEYS:
        write_image(tmp_path / "own" / f"k{key}.png", 255 - frames[key])
    return tmp_path / "own"


@pytest.fixture
def job(service: Service, own: Path, tmp_path: Path, frames: NDArray[np.uint8]) -> str:
    """A finished job of external keyframes."""
    source = write_clip(tmp_path / "clip.mp4", frames)
    request = JobRequest(str(source), Goal.PROPAGATION, tiny_settings(), own_keys=str(own))
    status = ended(service.engine, service.engine.submit(request).id, 60)
    assert status.state is State.DONE, status.message
    return status.id


def carried(engine: JobEngine, job: str) -> dict[int, tuple[int, bytes]]:
    """When each frame between keyframes was written, and what is in it."""
    (folder,) = (engine.folder(job) / "workspace").glob("frames-*")
    return {int(path.stem): (path.stat().st_mtime_ns, path.read_bytes())
            for path in folder.glob("*.png")}


def shown(engine: JobEngine, job: str) -> list[NDArray[np.uint8]]:
    output = engine.outcome(job).output
    assert output is not None
    with open_source(output) as film:
        return list(film.frames())


def test_only_the_segments_beside_it_are_made_again(
    service: Service, job: str, own: Path
) -> None:
    engine = service.engine
    before, video, yours = carried(engine, job), shown(engine, job), sorted(own.iterdir())
    theirs = [path.read_bytes() for path in yours]
    status = service.retouch(job, 4, GREEN)
    assert not status.state.ended
    assert engine.status(job).result in (EARLIER_RESULT, NEW_RESULT)
    assert engine.outcome(job).output is not None, "the video before stays"
    status = ended(engine, job, 60)
    assert (status.state, status.result) == (State.DONE, NEW_RESULT), status.message
    after = carried(engine, job)
    assert before.keys() == after.keys() == set(range(FRAMES)) - set(KEYS)
    changed = {frame for frame in after if after[frame] != before[frame]}
    assert changed == {1, 2, 3, 5, 6, 7}
    assert engine.retouched(job) == frozenset()
    now = shown(engine, job)
    assert np.abs(now[4].astype(int) - (0, 200, 0)).mean() < 12
    assert np.abs(now[10].astype(int) - video[10]).mean() < 3
    assert [path.read_bytes() for path in yours] == theirs, "somebody's folder is left alone"
    service.retouch(job, 8, GREEN)  # the job's own folder of keyframes is used on
    status = ended(engine, job, 60)
    assert status.state is State.DONE, status.message
    now = shown(engine, job)
    for key in (4, 8):
        assert np.abs(now[key].astype(int) - (0, 200, 0)).mean() < 12
    again = carried(engine, job)
    assert {frame for frame in again if again[frame] != after[frame]} == {5, 6, 7, 9, 10, 11}


def test_every_layer_of_a_finished_job_is_seen(service: Service, job: str) -> None:
    for layer in Layer:
        seen = service.frames.look(job, 2, layer)
        assert (seen is None) == (layer in (Layer.KEYFRAME, Layer.MASK, Layer.HINT)), layer
        if seen is not None and layer is not Layer.SIDE:
            assert seen.image.shape == (64, 64, 3)
    assert service.frames.look(job, 0, Layer.FLOW) is None, "no frame lies before it"
    assert service.frames.look(job, 4, Layer.FORWARD) is None, "a keyframe has no sides"
    judged = list_judged(service.engine.folder(job))
    assert sorted(judged) == [n for n in range(FRAMES) if n not in KEYS]
    assert all(0 <= each.occlusion <= 1 <= 1 + each.error for each in judged.values())


def test_colours_of_motion() -> None:
    flow = np.zeros((8, 8, 2), np.float32)
    flow[:4, :, 0] = 5  # to the right: red; the rest stands still
    colors = color_flow(flow)
    assert tuple(colors[0, 0]) == (255, 0, 0)
    assert tuple(colors[7, 0]) == (255, 255, 255)


def test_while_it_is_made_again_frames_come_as_drafts(
    service: Service, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = service.engine
    first, second, third = list_segments(engine.folder(job))
    assert [s.first for s in (first, second, third)] == [0, 4, 8]
    before = service.drafts.draw(job, 2)
    assert before is not None
    assert service.drafts.draw(job, 4) is None, "a keyframe has no draft"
    with monkeypatch.context() as held:
        held.setattr(engine, "_queue_renewed", lambda job: engine._renewed.pop(job))
        service.retouch(job, 4, GREEN)
    assert engine.retouched(job) == {4}
    draft, other = service.drafts.draw(job, 2), service.drafts.draw(job, 10)
    assert draft is not None
    assert other is not None
    assert np.abs(draft.astype(int) - before).mean() > 10
    folder = engine.folder(job)
    assert find_carried(folder, third) is not None
    assert [find_carried(folder, segment) for segment in (first, second)] == [None, None]
    service.drafts.prepare(job, 4)
    service.drafts._ahead.shutdown()
    assert [service.drafts.count(job, segment) for segment in (first, second)] == [3, 3]


def test_a_second_retouch_stops_the_run_of_the_first(service: Service, job: str) -> None:
    engine = service.engine
    for key, level in ((4, 30), (8, 60), (4, 90), (0, 120)):
        service.retouch(job, key, np.full((64, 64, 3), level, np.uint8))
    status = ended(engine, job, 60)
    assert (status.state, status.result) == (State.DONE, NEW_RESULT), status.message
    now = shown(engine, job)
    for key, level in ((0, 120), (4, 90), (8, 60)):
        assert np.abs(now[key].astype(int) - level).mean() < 4
    assert engine.retouched(job) == frozenset()
    key = read_image(engine.outcome(job).keys[4])
    assert key is not None
    assert (key == 90).all()


def test_a_run_that_fails_because_of_a_retouch_goes_on_with_it(
    service: Service, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have read the keyframe while it was replaced, and say that its source has changed."""
    check, struck = Source.check, list[str]()

    def replaced_meanwhile(source: Source) -> None:
        if not struck:
            struck.append("once")
            service.retouch(job, 4, np.full((64, 64, 3), 90, np.uint8))
            raise VideoError("It has changed since the run began.")
        check(source)

    monkeypatch.setattr(Source, "check", replaced_meanwhile)
    service.retouch(job, 8, np.full((64, 64, 3), 60, np.uint8))
    status = ended(service.engine, job, 60)
    assert struck
    assert status.state is State.DONE, status.message
    now = shown(service.engine, job)
    for key, level in ((4, 90), (8, 60)):
        assert np.abs(now[key].astype(int) - level).mean() < 4


def test_what_cannot_be_retouched_is_named(service: Service, job: str) -> None:
    with pytest.raises(SettingsError, match=r"Frame 5 is not among .*: 0, 4, 8, 12\. Name one"):
        service.retouch(job, 5, GREEN)
    assert service.engine.status(job).state is State.DONE


def test_a_damaged_plan_names_no_frames_elsewhere(service: Service, job: str) -> None:
    folder = service.engine.folder(job)
    plan = folder / "workspace" / "plan.json"
    whole = json.loads(plan.read_text())
    for name in ("..", ".", "../../other", 7, None, "gone"):
        plan.write_text(json.dumps({**whole, "frames": name}))
        found = [find_carried(folder, segment) for segment in list_segments(folder)]
        assert found == [None] * (len(KEYS) - 1), name
    plan.write_text(json.dumps({**whole, "shots": [["a", 3]]}))
    assert list_segments(folder) == []
