"""Keyframe batches: resumed to the byte, shrunk when memory runs out."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fresco.errors import Cancelled, HostError, OutOfMemoryError
from fresco.flow.dis import DisEstimator
from fresco.guidance.consensus import Link
from fresco.guidance.ports import BatchRequest, BatchResult, Host
from fresco.hosts.diffusers.load import load_host
from fresco.options import from_dict
from fresco.planning.keyframes import Batch, KeyframePlan, plan_batches
from fresco.progress import Progress, Stage, StageStatus
from fresco.run.batches import KeyframeRun, shrink_batches, translate_group, translate_unguided
from fresco.run.clip import WorkingFrames
from fresco.run.redo import redo_keyframe
from fresco.settings import FrescoSettings
from fresco.workspace import read_image
from tests.helpers.clips import moving_texture, write_clip

KEYS = tuple(range(9))


class _Narrow:
    """The real host, with memory for so many frames only."""

    def __init__(self, host: Host, room: int) -> None:
        self._host, self._room = host, room
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def sample(self, request: BatchRequest, guide: Any, stage: Stage) -> BatchResult:
        if len(request.frames) > self._room:
            raise OutOfMemoryError("out of memory")
        self.sizes.append(len(request.frames))
        return self._host.sample(request, guide, stage)


@pytest.fixture(scope="module")
def settings(demo_model: Path) -> FrescoSettings:
    return from_dict({
        "sampling": {"model": str(demo_model), "resolution": 64, "steps": 4, "strength": 0.5},
        "guidance": {"optimization_iterations": 2},
        "keyframes": {"batch_size": 5},
    })


@pytest.fixture(scope="module")
def host(settings: FrescoSettings) -> Host:
    return load_host(settings.sampling, offline=True)


@pytest.fixture
def run(tmp_path: Path, settings: FrescoSettings, host: Host) -> KeyframeRun:
    clip = write_clip(tmp_path / "clip.mp4", moving_texture(9, 64, 64))
    folder = tmp_path / "keys"
    folder.mkdir()
    frames = WorkingFrames(str(clip), (64, 64))
    return KeyframeRun(folder, frames, settings, host, DisEstimator(), Progress())


def _translate(run: KeyframeRun, batches: tuple[Batch, ...], **rest: Any) -> dict[str, bytes]:
    with run.progress.stage("keyframes", len(KEYS)) as stage:
        translate_group(run, batches, stage, **rest)
    return {path.name: path.read_bytes() for path in run.folder.iterdir()}


def _pictures(files: dict[str, bytes]) -> list[str]:
    return sorted(name for name in files if name.endswith(".png"))


def test_every_key_is_saved_once_and_a_second_run_samples_nothing(run: KeyframeRun) -> None:
    batches = plan_batches(KEYS, 5)
    files = _translate(run, batches)
    assert _pictures(files) == [f"{key:06d}.png" for key in KEYS]
    narrow = _Narrow(run.host, 0)
    assert _translate(dataclasses.replace(run, host=narrow), batches) == files


@pytest.mark.parametrize(("lost", "consensus"), [("carry", False), ("picture", True)])
def test_a_resumed_run_gives_the_same_bytes(
    run: KeyframeRun, lost: str, consensus: bool
) -> None:
    settings = from_dict({"guidance": {"consensus": consensus}}, run.settings)
    run, batches = dataclasses.replace(run, settings=settings), plan_batches(KEYS, 5)
    files = _translate(run, batches)
    assert len(batches) > 1
    name = sorted(n for n in files if n.startswith("carry"))[-1]
    (run.folder / (name if lost == "carry" else f"{KEYS[-1]:06d}.png")).unlink()
    assert _translate(run, batches) == files


class _Kill(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def test_a_kill_within_a_batch_costs_no_bytes(run: KeyframeRun, tmp_path: Path) -> None:
    """At its first call, and behind its last; with consensus, in batches of three, the smallest."""
    settings = from_dict({"guidance": {"consensus": True}}, run.settings)
    run = dataclasses.replace(run, settings=settings)
    batches = (Batch(0, (), (0, 1, 2)), Batch(1, (0, 2), (3,)), Batch(2, (0, 3), (4,)))
    files = _translate(run, batches)
    for done in (1, 2):
        def kill(status: StageStatus, done: int = done) -> None:
            if (status.stage, status.done) == ("batch 3", done):
                raise _Kill

        folder = tmp_path / f"killed {done}"
        folder.mkdir()
        killed = dataclasses.replace(run, folder=folder)
        with pytest.raises(_Kill):
            _translate(dataclasses.replace(killed, progress=Progress(kill)), batches)
        left = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert _pictures(left) == _pictures(files)[:4]
        assert _translate(killed, batches) == files


def test_one_keyframe_alone_agrees_with_itself(run: KeyframeRun) -> None:
    images = []
    for consensus in (True, False):
        settings = from_dict({"guidance": {"consensus": consensus}}, run.settings)
        _translate(dataclasses.replace(run, settings=settings), plan_batches(KEYS[:1], 5))
        images.append(read_image(run.folder / "000000.png"))
        for path in run.folder.iterdir():
            path.unlink()
    assert images[0] is not None
    assert images[1] is not None
    assert np.abs(images[0].astype(int) - images[1]).max() <= 1


def test_consensus_knows_the_words_of_single_keyframes(run: KeyframeRun) -> None:
    """What words of its own ask of a keyframe is not evened out."""
    seen: list[tuple[Link, ...]] = []

    class Watched(_Narrow):
        def sample(self, request: BatchRequest, guide: Any, stage: Stage) -> BatchResult:
            seen.append(guide._batch.consensus.links)
            return super().sample(request, guide, stage)

    for words in ({}, {"1": "in the rain"}):
        settings = from_dict({
            "guidance": {"consensus": True}, "sampling": {"key_prompts": words},
        }, run.settings)
        watched = dataclasses.replace(run, settings=settings, host=Watched(run.host, 9))
        watched.sample_guided(KEYS[:3], None, "batch")
    pairs = zip(*seen, strict=True)
    shares = {(told.frame, told.other): (told.weight.sum() / plain.weight.sum()).item()
              for plain, told in pairs}
    assert {pair for pair, share in shares.items() if share < 0.5} == {
        (0, 1), (1, 0), (1, 2), (2, 1)
    }


def test_the_time_left_is_that_of_what_is_made(run: KeyframeRun) -> None:
    batches = plan_batches(KEYS, 5)
    _translate(run, batches, wanted=1)
    seen: list[StageStatus] = []
    again = dataclasses.replace(run, progress=Progress(seen.append))
    _translate(again, batches)
    outer = [status for status in seen if status.stage == "keyframes"]
    first = len(batches[0].frames)
    assert [(s.done, s.found) for s in outer[1:3]] == [
        (first, first), (first + len(batches[1].frames), first)
    ]
    assert outer[1].seconds_left is None
    assert outer[2].seconds_left is not None


def test_whole_batches_at_the_beginning_are_reused_by_the_run(run: KeyframeRun) -> None:
    batches = plan_batches(KEYS, 5)
    files = _translate(run, batches, wanted=1)
    assert _pictures(files) == [f"{key:06d}.png" for key in batches[0].frames]
    whole = _translate(run, batches)
    assert {name: whole[name] for name in files} == files


def test_little_memory_shrinks_the_batch_and_says_so(
    run: KeyframeRun, caplog: pytest.LogCaptureFixture
) -> None:
    narrow = _Narrow(run.host, 3)
    files = _translate(dataclasses.replace(run, host=narrow), plan_batches(KEYS, 5))
    assert _pictures(files) == [f"{key:06d}.png" for key in KEYS]
    assert max(narrow.sizes) == 3
    assert "Out of memory with a batch of 5 frames" in caplog.text
    # A resumed run cuts the batches in the same places, though there is room again.
    again = _Narrow(run.host, 0)
    assert _translate(dataclasses.replace(run, host=again), plan_batches(KEYS, 5)) == files


class _NarrowFlow(DisEstimator):
    """Flow of so many pairs at most, in the words of torch's allocator."""

    def __init__(self, room: int) -> None:
        self._room = room

    def estimate(self, source: torch.Tensor, target: torch.Tensor) -> Any:
        if len(source) > self._room:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 GB")
        return super().estimate(source, target)


def test_memory_that_ends_while_the_guide_is_built_shrinks_the_batch_too(
    run: KeyframeRun, caplog: pytest.LogCaptureFixture
) -> None:
    narrow = dataclasses.replace(run, estimator=_NarrowFlow(3))
    files = _translate(narrow, plan_batches(KEYS, 5))
    assert _pictures(files) == [f"{key:06d}.png" for key in KEYS]
    assert "Out of memory with a batch of 5 frames" in caplog.text
    again = _translate(dataclasses.replace(run, host=_Narrow(run.host, 0)), plan_batches(KEYS, 5))
    assert again == files


@pytest.mark.parametrize("short", ["flow", "model"])
def test_a_keyframe_made_again_without_memory_is_a_clear_error(
    run: KeyframeRun, short: str
) -> None:
    plan = KeyframePlan(KEYS, plan_batches(KEYS, 5), ())
    files = _translate(run, plan.batches)
    narrow = dataclasses.replace(run, estimator=_NarrowFlow(2)) if short == "flow" else \
        dataclasses.replace(run, host=_Narrow(run.host, 2))
    with pytest.raises(HostError, match=r"out of memory with 3 keyframes\. Lower sampling"):
        redo_keyframe(narrow, [plan], 4)
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == files


def test_no_memory_at_all_is_a_clear_error(run: KeyframeRun) -> None:
    narrow = _Narrow(run.host, 2)
    with pytest.raises(HostError, match="3 frames, the smallest"):
        _translate(dataclasses.replace(run, host=narrow), plan_batches(KEYS, 5))


def test_frame_by_frame_resumes_to_the_same_bytes(run: KeyframeRun) -> None:
    with run.progress.stage("alone", 9) as stage:
        translate_unguided(run, KEYS, stage)
    files = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    assert len(files) == len(KEYS)
    (run.folder / "000006.png").unlink()
    with run.progress.stage("alone", 9) as stage:
        translate_unguided(run, KEYS, stage)
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == files


def test_frame_by_frame_takes_fewer_frames_where_memory_is_short(run: KeyframeRun) -> None:
    narrow = _Narrow(run.host, 2)
    with run.progress.stage("alone", 9) as stage:
        translate_unguided(dataclasses.replace(run, host=narrow), KEYS, stage)
    files = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    assert _pictures(files) == [f"{key:06d}.png" for key in KEYS]
    assert set(narrow.sizes) == {1, 2}
    (run.folder / "000006.png").unlink()
    with run.progress.stage("alone", 9) as stage:  # resumed, with room again
        translate_unguided(run, KEYS, stage)
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == files
    for path in run.folder.glob("*.png"):
        path.unlink()
    with run.progress.stage("alone", 9) as stage, \
            pytest.raises(OutOfMemoryError, match="memory"):
        translate_unguided(dataclasses.replace(run, host=_Narrow(run.host, 0)), KEYS, stage)


class _ShortLater(_Narrow):
    """Memory for all frames at first, for few from a frame on; then it is stopped."""

    def __init__(self, host: Host, *, full: int, stop_after: int = 10**6) -> None:
        super().__init__(host, 10**6)
        self._full, self._left = full, stop_after

    def sample(self, request: BatchRequest, guide: Any, stage: Stage) -> BatchResult:
        if len(self.sizes) == self._full:
            self._room = 2
        if len(self.sizes) == self._left:
            raise Cancelled("stopped")
        return super().sample(request, guide, stage)


def test_frame_by_frame_resumes_in_the_groups_it_began_with(
    run: KeyframeRun, tmp_path: Path
) -> None:
    """Five frames at once, then two: whatever was done before the stop, the images are the same."""
    files: list[dict[str, bytes]] = []
    for name, stop in (("whole", 10**6), ("stopped", 2)):
        folder = tmp_path / name
        folder.mkdir()
        host = _ShortLater(run.host, full=1, stop_after=stop)
        alone = dataclasses.replace(run, folder=folder, host=host)
        with contextlib.suppress(Cancelled), run.progress.stage("alone", 9) as stage:
            translate_unguided(alone, KEYS, stage)
        assert host.sizes == [5, 2, 2][:stop]
        resumed = _ShortLater(run.host, full=10)
        with run.progress.stage("alone", 9) as stage:
            translate_unguided(dataclasses.replace(alone, host=resumed), KEYS, stage)
        files.append({path.name: path.read_bytes() for path in folder.glob("*.png")})
    assert files[0] == files[1]


@st.composite
def _failures(draw: st.DrawFn) -> tuple[list[Batch], int, int]:
    keys = tuple(range(draw(st.integers(1, 40))))
    batches = list(plan_batches(keys, draw(st.integers(4, 12))))
    return batches, draw(st.integers(0, len(batches) - 1)), draw(st.integers(3, 10))


@given(_failures())
def test_shrunk_batches_cover_every_key_once(case: tuple[list[Batch], int, int]) -> None:
    batches, position, size = case
    done, failed = batches[:position], batches[position:]
    after = done + shrink_batches(done, failed, size)
    wanted = [key for batch in batches for key in batch.frames]
    assert [key for batch in after for key in batch.frames] == wanted
    assert [batch.number for batch in after] == list(range(len(after)))
    for before, batch in itertools.pairwise(after[max(0, position - 1):]):
        assert batch.anchors == (after[0].frames[0], before.frames[-1])
    for batch in after[position:]:
        assert batch.frames
        assert len(batch.all) <= size

