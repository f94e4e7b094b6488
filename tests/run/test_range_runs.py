"""A change of one range makes only its own keyframes, and the frames beside them, anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fresco.errors import SettingsError
from fresco.guidance.ports import BatchRequest, BatchResult, Host
from fresco.hosts.diffusers.load import load_host
from fresco.options import from_dict
from fresco.progress import Progress, Stage, StageStatus
from fresco.run.keyframes import PLAN_NAME
from fresco.run.translate import retranslate_keyframe, translate
from fresco.settings import FrescoSettings
from fresco.workspace import read_json
from tests.helpers.clips import moving_texture, write_clip

FRAMES = 11


class _Watched:
    """The real host; knows what it was asked."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.asked: list[tuple[int, float | None, int | None, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def sample(self, request: BatchRequest, guide: Any, stage: Stage) -> BatchResult:
        self.asked.append(
            (len(request.frames), request.strength, request.seed, request.prompts[0])
        )
        return self._host.sample(request, guide, stage)


def _settings(model: Path, *ranges: str) -> FrescoSettings:
    """Keyframes 0, 2, .. 10 in ranges of three, two and one."""
    return from_dict({
        "sampling": {"model": str(model), "resolution": 64, "steps": 2, "strength": 0.5,
                     "prompt": "a sea", "ranges": list(ranges)},
        "guidance": {"optimization_iterations": 1},
        "keyframes": {"keys": "0,2,4,6,8,10"}, "flow": {"estimator": "dis"},
        "propagation": {"method": "flow", "workers": 1}, "output": {"measures": False},
    })


def _read(folder: Path, kind: str) -> dict[str, bytes]:
    plan = read_json(folder / PLAN_NAME) or {}
    return {path.name: path.read_bytes() for path in (folder / plan[kind]).glob("*.png")}


def test_a_change_of_one_range_leaves_the_others(tmp_path: Path, demo_model: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_texture(FRAMES, 64, 64))
    before = _settings(demo_model, "6-9 strength=1 seed=5 prompt=a red BREAK sun")
    host: Any = _Watched(load_host(before.sampling, offline=True))
    output, work = tmp_path / "r.mp4", tmp_path / "r.fresco"
    translate(clip, output, before, lambda: host, Progress())
    assert host.asked == [
        (3, None, None, "a sea"), (2, 1.0, 5, "a red BREAK sun"), (1, None, None, "a sea")]
    keys, frames = _read(work, "folder"), _read(work, "frames")

    host.asked.clear()
    told: list[StageStatus] = []
    after = _settings(demo_model, "6-9 strength=0.5 seed=5 prompt=a BREAK blue moon")
    translate(clip, output, after, lambda: host, Progress(told.append))
    assert host.asked == [(2, 0.5, 5, "a BREAK blue moon")]
    now, between = _read(work, "folder"), _read(work, "frames")
    assert sorted(n for n in now if now[n] != keys[n]) == ["000006.png", "000008.png"]
    assert all(between[n] == frames[n] for n in ("000001.png", "000003.png"))
    assert all(between[n] != frames[n] for n in ("000005.png", "000007.png", "000009.png"))

    # As if nothing had been there before.
    translate(clip, tmp_path / "new.mp4", after, lambda: host, Progress())
    assert _read(tmp_path / "new.fresco", "folder") == now
    assert _read(tmp_path / "new.fresco", "frames") == between

    host.asked.clear()  # one keyframe again: by its range, or by a seed of its own
    for seed in (None, 8):
        retranslate_keyframe(clip, output, after, 8, lambda: host, Progress(), seed=seed)
    assert [each[1:3] for each in host.asked] == [(0.5, 5), (0.5, 8)]


def test_a_range_behind_the_source_is_refused_before_the_model(
    tmp_path: Path, demo_model: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_texture(3, 64, 64))
    with pytest.raises(SettingsError, match="the source ends with frame 2"):
        translate(clip, tmp_path / "r.mp4", _settings(demo_model, "1-4 seed=1"), pytest.fail,
                  Progress())
