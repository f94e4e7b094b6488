"""Where keyframes lie: what keeps them, and what a preview makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fresco.flow.dis import DisEstimator
from fresco.guidance.ports import BatchRequest, BatchResult, Host
from fresco.hosts.diffusers.load import load_host
from fresco.options import from_dict
from fresco.progress import Progress, Stage, StageStatus
from fresco.run.batches import KeyframeRun
from fresco.run.clip import open_clip
from fresco.run.context import RunContext, open_run
from fresco.run.evaluate import _translate_unguided
from fresco.run.keyframes import open_keyframes
from fresco.run.translate import retranslate_keyframe, translate
from fresco.settings import FrescoSettings
from fresco.workspace import read_json
from tests.helpers.clips import moving_texture, write_clip

FRAMES = 9


class _Counted:
    """The real host; knows the sizes of the batches that it sampled."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def sample(self, request: BatchRequest, guide: Any, stage: Stage) -> BatchResult:
        self.sizes.append(len(request.frames))
        return self._host.sample(request, guide, stage)


@pytest.fixture(scope="module")
def settings(demo_model: Path) -> FrescoSettings:
    """Every frame is a keyframe, in two batches: six frames, then two anchors and three."""
    return from_dict({
        "sampling": {"model": str(demo_model), "resolution": 64, "steps": 2, "strength": 0.5},
        "guidance": {"optimization_iterations": 1},
        "keyframes": {"batch_size": 6, "keys": ",".join(map(str, range(FRAMES)))},
        "flow": {"estimator": "dis"}, "propagation": {"enabled": False},
    })


@pytest.fixture(scope="module")
def loaded(settings: FrescoSettings) -> Host:
    return load_host(settings.sampling, offline=True)


@pytest.fixture
def host(loaded: Host) -> Any:
    return _Counted(loaded)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", moving_texture(FRAMES, 64, 64))


@contextmanager
def _opened(clip: Path, folder: Path, settings: FrescoSettings) -> Iterator[RunContext]:
    output = folder / "r.mp4"
    with open_run(open_clip(clip, settings), settings, output, Progress(), None) as run:
        yield run


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.png"))


def _frames(count: int) -> list[str]:
    return [f"{number:06d}.png" for number in range(count)]


@pytest.mark.parametrize("changes", [
    {"model": "renamed.safetensors"}, {"device": "cpu"}, {"canny_low": 20, "canny_high": 40},
    {"control_weight": 0.2}, {"vae": "the same, named"},
], ids=lambda changes: next(iter(changes)))
def test_keyframes_are_kept_by_what_changes_no_image(
    clip: Path, settings: FrescoSettings, loaded: Host, tmp_path: Path, changes: dict[str, Any]
) -> None:
    with _opened(clip, tmp_path, settings) as run:
        before = open_keyframes(run, (), loaded, DisEstimator()).folder
        run.settings = from_dict({"sampling": changes}, settings)
        assert open_keyframes(run, (), loaded, DisEstimator()).folder == before
        run.settings = from_dict({"sampling": {"seed": 2}}, settings)
        assert open_keyframes(run, (), loaded, DisEstimator()).folder != before


def test_frames_alone_belong_to_the_size_of_their_groups(
    clip: Path, settings: FrescoSettings, host: Any, tmp_path: Path
) -> None:
    """A frame's noise depends on its place in its group."""
    short = from_dict({"output": {"last_frame": 3}, "keyframes": {"keys": ""}}, settings)
    for size, sampled in ((3, [3, 1]), (4, [3, 1, 4]), (3, [3, 1, 4])):
        sized = from_dict({"keyframes": {"batch_size": size}}, short)
        with _opened(clip, tmp_path, sized) as run:
            keys = KeyframeRun(tmp_path, run.clip.frames, sized, host, DisEstimator(), run.progress)
            _translate_unguided(run, keys)
        assert host.sizes == sampled


@pytest.mark.parametrize("count", [1, 4])
def test_a_preview_makes_as_many_keyframes_as_were_asked_for(
    clip: Path, settings: FrescoSettings, host: Any, tmp_path: Path, count: int
) -> None:
    seen: list[StageStatus] = []
    result = translate(
        clip, tmp_path / "r.mp4", settings, lambda: host, Progress(seen.append), preview=count
    )
    assert host.sizes == [count]
    assert _names(result.output) == _frames(count)
    known = read_json(result.workspace / "plan.json")
    assert known is not None
    assert _names(result.workspace / known["folder"]) == _frames(count)
    ended = next(s for s in seen if s.stage == "keyframes" and s.finished)
    assert ended.done == ended.total == count


def test_a_preview_of_whole_batches_is_part_of_the_run(
    clip: Path, settings: FrescoSettings, host: Any, tmp_path: Path
) -> None:
    """Six frames, then one more, all of them, and a part again."""
    told: list[list[str]] = []
    for preview in (6, 7, None, 2):
        result = translate(
            clip, tmp_path / "r.mp4", settings, lambda: host, Progress(), preview=preview
        )
        told.append(_names(result.output))
    assert host.sizes == [6, 3, 5]
    assert told == [_frames(6), _frames(7), _frames(9), _frames(9)]


def test_a_keyframe_of_a_preview_is_made_again_where_it_lies(
    clip: Path, settings: FrescoSettings, host: Any, tmp_path: Path
) -> None:
    output = tmp_path / "r.mp4"
    first = translate(clip, output, settings, lambda: host, Progress(), preview=2)
    before = {path.name: path.read_bytes() for path in first.output.glob("*.png")}
    again = retranslate_keyframe(
        clip, output, settings, 1, lambda: load_host(settings.sampling, offline=True), Progress(),
        seed=5,
    )
    after = {path.name: path.read_bytes() for path in again.output.glob("*.png")}
    assert [name for name in before if before[name] != after[name]] == ["000001.png"]
    assert list(after) == list(before)
