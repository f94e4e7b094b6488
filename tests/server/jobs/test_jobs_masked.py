"""Drafts, keyframes and thumbnails of jobs with a mask: outside it they are the source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fresco.control import ControlUnit
from fresco.errors import SettingsError
from fresco.hosts.options import HostOptions
from fresco.server.frames import Layer
from fresco.server.hints import draw_hint
from fresco.server.jobs.job import Goal, JobRequest, State
from fresco.server.service import Service, open_service
from fresco.server.videos import read_frame
from fresco.workspace import frame_name, read_image, write_image
from tests.helpers.clips import moving_texture
from tests.helpers.job_bench import ended
from tests.helpers.job_environment import CANNY, TinyEnvironment, tiny_settings

COUNT, WIDE, HIGH = 5, 128, 96
LEFT = WIDE // 2
MASK = np.zeros((HIGH, WIDE, 3), np.uint8)
MASK[:, :LEFT] = 255


@pytest.fixture
def service(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    environment = TinyEnvironment(tmp_path_factory.getbasetemp() / "job-models")
    opened = open_service(tmp_path / "service", environment)
    yield opened
    opened.engine.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number, frame in enumerate(moving_texture(COUNT, HIGH, WIDE)):
        write_image(tmp_path / "source" / frame_name(number), frame)
    return tmp_path / "source"


def run(service: Service, request: JobRequest) -> str:
    status = ended(service.engine, service.submit(request).id, 60)
    assert status.state is State.DONE, status.message
    return status.id


def test_outside_the_mask_everything_that_is_shown_is_the_source(
    service: Service, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit and in its size, while keyframes are smaller."""
    write_image(tmp_path / "mask.png", MASK)
    for key in (0, COUNT - 1):
        write_image(tmp_path / "own" / frame_name(key), np.full((HIGH, WIDE, 3), 250, np.uint8))
    mask = {"source": "files", "path": str(tmp_path / "mask.png"), "feather": 4}
    job = run(service, JobRequest(
        str(source), Goal.PROPAGATION, tiny_settings({"mask": mask}), own_keys=str(tmp_path / "own")
    ))
    engine = service.engine

    def check(image: NDArray[np.uint8], number: int) -> None:
        there = read_frame(source, number)
        assert np.array_equal(image[:, LEFT:], there[:, LEFT:])
        assert (image[:, :LEFT - 4] != there[:, :LEFT - 4]).any(axis=2).mean() > 0.9

    with monkeypatch.context() as held:
        held.setattr(engine, "_queue_renewed", lambda job: engine._renewed.pop(job))
        green = np.full((40, 40, 3), (0, 200, 0), np.uint8)
        _, seen = service.retouch_and_look(job, 0, green, 2, Layer.RESULT)
    assert seen is not None
    assert seen.draft
    check(seen.image, 2)
    draft, again = service.frames.look(job, 2, Layer.RESULT), service.frames.draw_draft(job, 2)
    assert draft is not None
    assert draft.draft
    assert again is not None
    assert np.array_equal(draft.image, seen.image)
    assert np.array_equal(again, seen.image)
    for layer in (Layer.KEYFRAME, Layer.RESULT):
        key = service.frames.look(job, 0, layer)
        assert key is not None
        check(key.image, 0)
    stored = read_image(engine.outcome(job).keys[0])
    assert stored is not None
    assert (np.abs(stored.astype(int) - (0, 200, 0)) < 8).all(), "what is stored has no mask"
    small = service.frames.read_small_keys(job, [0, 2], 32)
    assert list(small) == [0]
    assert np.abs(small[0][:, -8:].astype(int) - (0, 200, 0)).mean() > 20
    shown = service.frames.look(job, 3, Layer.MASK)
    assert shown is not None
    middle = shown.image.shape[1] // 2
    assert (shown.image[:, :middle - 1] == 255).all()
    assert not shown.image[:, middle + 1:].any()


def test_a_transparent_job_is_shown_over_black(
    service: Service, tmp_path: Path
) -> None:
    """By the alpha of its source, without a mask; where nothing is transparent it is refused."""
    alpha = np.zeros((HIGH, WIDE, 1), np.uint8)
    alpha[:, :LEFT] = 255
    for number, frame in enumerate(moving_texture(COUNT, HIGH, WIDE)):
        (tmp_path / "clear").mkdir(exist_ok=True)
        Image.fromarray(np.dstack([frame, alpha])).save(tmp_path / "clear" / f"{number}.png")
        write_image(tmp_path / "opaque" / f"{number}.png", frame)
    write_image(tmp_path / "own" / "0.png", np.full((HIGH, WIDE, 3), 250, np.uint8))
    settings = tiny_settings({"output": {"background": "transparent", "codec": "png"}})

    def ask(name: str) -> JobRequest:
        return JobRequest(str(tmp_path / name), Goal.PROPAGATION, settings,
                          own_keys=str(tmp_path / "own"))

    with pytest.raises(SettingsError, match="the source has no transparent parts"):
        service.submit(ask("opaque"))
    job = run(service, ask("clear"))
    small = service.frames.read_small_keys(job, [0], 32)[0]
    for layer in (Layer.KEYFRAME, Layer.RESULT):
        seen = service.frames.look(job, 0, layer)
        assert seen is not None
        for image in (seen.image, small):
            middle = image.shape[1] // 2
            assert not image[:, middle + 2:].any()
            assert (image[:, :middle - 2] > 240).all()


def test_keyframes_alone_have_their_masks_and_hints(
    service: Service, source: Path, tmp_path: Path
) -> None:
    """Before any frame between them is made."""
    write_image(tmp_path / "drawn" / frame_name(0), MASK)
    unit = ControlUnit(CANNY, "canny")
    settings = tiny_settings({
        "mask": {"source": "drawing", "path": str(tmp_path / "drawn"), "feather": 0},
        "keyframes": {"keys": "0,2,4", "detect_shots": False},
    })
    job = run(service, JobRequest(
        str(source), Goal.PREVIEW, settings, HostOptions(control=(unit,)), preview=1
    ))
    look = service.frames.look
    key, mask = look(job, 0, Layer.KEYFRAME), look(job, 0, Layer.MASK)
    assert key is not None
    assert mask is not None
    assert np.array_equal(key.image[:, LEFT + 2:], read_frame(source, 0)[:, LEFT + 2:])
    assert look(job, 4, Layer.MASK) is None, "masks of other keyframes are not waited for"
    service.resume(job, JobRequest(
        str(source), Goal.KEYFRAMES, settings, HostOptions(control=(unit,)), title="clip"
    ))
    assert ended(service.engine, job, 60).state is State.DONE
    assert look(job, 4, Layer.MASK) is not None
    hint = look(job, 4, Layer.HINT)
    assert hint is not None
    assert np.array_equal(hint.image, draw_hint(service.environment, source, 4, unit, settings))
    assert look(job, 3, Layer.HINT) is None, "it is not a keyframe"
    assert look(job, 4, Layer.HINT, unit=2) is None, "there is one unit"
