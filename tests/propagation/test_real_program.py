"""Patches by the program that ships: known truth, repeatable to the byte, any path."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from fresco.errors import Cancelled, PropagationError
from fresco.flow.dis import DisEstimator
from fresco.progress import Progress
from fresco.propagation import synthesizer
from fresco.propagation.engine import PatchEngine
from fresco.propagation.executor import run_segments
from fresco.propagation.guides import Guide, KeySources, normalise_distance
from fresco.propagation.program import OVERRIDE, find_program, require_program
from fresco.propagation.propagate import propagate_segment
from fresco.propagation.segment import SegmentJob
from fresco.propagation.synthesizer import PatchSynthesizer, SynthesisOptions
from fresco.workspace import read_image, write_image
from tests.helpers.scenes import SlidingScene, make_jobs, texture

SCENE = SlidingScene(7, height=64, width=80, speed=2, square=0)
SHIFT = 4
FRAME = texture(64, 80, 1)
STILL = np.zeros((64, 80, 2), np.float32)


def painted(image: np.ndarray) -> np.ndarray:
    """Flat patches with dark outlines: far from what any warp of the frame shows."""
    flat = cv2.pyrMeanShiftFiltering(image, 6, 30)
    lines = cv2.Canny(cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY), 60, 120) > 0
    return np.where(lines[..., None], np.uint8(20), 255 - flat // 2).astype(np.uint8)


@pytest.fixture(autouse=True)
def _shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OVERRIDE, raising=False)


@pytest.fixture
def engine() -> PatchEngine:
    program = require_program()
    return PatchEngine("balanced", program.fingerprint, program.version)


def jobs_with_style(folder: Path, engine: PatchEngine, keys: list[int]) -> list[SegmentJob]:
    jobs = make_jobs(SCENE, keys, folder, engine=engine)
    for key in keys:
        path = jobs[0].first_key.with_name(f"{key:06d}.png")
        write_image(path, painted(SCENE.image(key)))
    return jobs


def shown(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image is not None
    return image.astype(int)


@pytest.mark.parametrize("quality", ["balanced", "best"])
def test_a_moved_scene_is_painted_as_the_moved_style(quality: str) -> None:
    style = painted(FRAME)
    moved, wanted = (np.roll(image, SHIFT, axis=1) for image in (FRAME, style))
    flow = STILL - np.float32([SHIFT, 0])
    options = SynthesisOptions(quality)
    with PatchSynthesizer(find_program(), style, options) as program:
        guides = KeySources.from_frame(FRAME, style).make_guides(moved, flow)
        first, error = program.frame(guides)
        again, _ = program.frame(guides, STILL)
    for image in (first, again):
        inner = np.abs(image.astype(int) - wanted)[:, SHIFT + 3:]
        assert inner.mean() < 3
        assert (inner.max(axis=-1) > 30).mean() < 0.02
    # What entered the frame on the left is nowhere in the key.
    assert np.median(normalise_distance(error)[:, SHIFT + 5:]) < 1
    assert normalise_distance(error)[:, :SHIFT].mean() > 20


def test_all_frames_are_near_the_style_and_nearer_than_a_fade(
    tmp_path: Path, engine: PatchEngine
) -> None:
    (job,) = jobs_with_style(tmp_path, engine, [0, 6])
    propagate_segment(job, DisEstimator())
    first, last = (painted(SCENE.image(key)).astype(float) for key in (0, 6))
    for frame in job.interior:
        wanted = painted(SCENE.image(frame))
        error = np.abs(shown(job.path(frame)) - wanted).mean()
        fade = np.abs(first + (last - first) * frame / 6 - wanted).mean()
        assert error < 0.5 * fade


def test_processes_threads_and_interruptions_change_no_byte(
    tmp_path: Path, engine: PatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [0, 3, 6]

    def frames(jobs: list[SegmentJob]) -> dict[str, bytes]:
        return {job.path(n).name: job.path(n).read_bytes() for job in jobs for n in job.interior}

    alone = jobs_with_style(tmp_path / "alone", engine, keys)
    with Progress().stage("propagate", 4) as stage:
        run_segments(alone, 1, stage)
    two = jobs_with_style(tmp_path / "two", engine, keys)
    with Progress().stage("propagate", 4) as stage:
        run_segments(two, 2, stage)
    assert frames(two) == frames(alone)
    stopped = [replace(job, threads=4)
               for job in jobs_with_style(tmp_path / "stopped", engine, keys)]

    def check() -> None:
        if list(stopped[0].scratch.glob("backward-000002.npz")):
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        propagate_segment(stopped[0], DisEstimator(), check)
    for job in stopped:
        propagate_segment(job, DisEstimator())
    assert frames(stopped) == frames(alone)


def test_any_path_will_do(tmp_path: Path) -> None:
    folder = tmp_path / "mit Leerzeichen & 'Umläuten' äöü 日本"
    folder.mkdir()
    program = Path(shutil.copy(find_program(), folder / find_program().name))
    style = painted(FRAME)
    with PatchSynthesizer(program, style, SynthesisOptions()) as process:
        image, _ = process.frame(KeySources.from_frame(FRAME, style).make_guides(FRAME, STILL))
    assert np.abs(image.astype(int) - style).mean() < 3


def test_one_that_is_killed_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    style = painted(FRAME)
    guides = KeySources.from_frame(FRAME, style).make_guides(FRAME, STILL)
    with PatchSynthesizer(find_program(), style, SynthesisOptions()) as process:
        before, _ = process.frame(guides)
        (running,) = synthesizer._live
        os.kill(running.pid, signal.SIGKILL)
        after, _ = process.frame(guides, STILL)
    np.testing.assert_array_equal(before, after)
    assert "signal 9" in caplog.text


def test_what_it_cannot_use_is_told_in_its_own_words() -> None:
    style = painted(FRAME)
    wrong = [Guide(g.name, g.source, g.target, float("nan"))
             for g in KeySources.from_frame(FRAME, style).make_guides(FRAME, STILL)]
    process = PatchSynthesizer(find_program(), style, SynthesisOptions())
    with process, pytest.raises(PropagationError, match=r"lost 2 times .*exit code [23]; it said"):
        process.frame(wrong)


def test_stopping_in_the_middle_of_a_frame_is_at_once() -> None:
    large = texture(480, 640, 5)
    still = np.zeros((480, 640, 2), "f4")
    guides = KeySources.from_frame(large, 255 - large).make_guides(large[::-1], still)
    stop, seen = threading.Event(), list[float]()

    def check() -> None:
        if stop.is_set():
            seen.append(time.monotonic())
            raise Cancelled("stop")

    process = PatchSynthesizer(find_program(), 255 - large, SynthesisOptions("best"), check=check)
    timer = threading.Timer(0.4, stop.set)
    timer.start()
    with pytest.raises(Cancelled), process:
        process.frame(guides)
    timer.join()
    assert time.monotonic() - seen[0] < 1
    assert not synthesizer._live
