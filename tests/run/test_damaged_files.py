"""Files of a workspace that are damaged or foreign count as missing, and are made anew."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from fresco.errors import Cancelled
from fresco.options import from_dict
from fresco.progress import CancelToken, Progress, StageStatus
from fresco.propagation.scratch import save_arrays
from fresco.run.clip import open_clip
from fresco.run.translate import propagate_keys
from fresco.workspace import (
    drop_damaged,
    read_arrays,
    read_json,
    read_tensors,
    write_image,
    write_json,
    write_tensors,
)
from tests.helpers.clips import moving_texture, write_clip

COUNT, KEY = 7, 1
SETTINGS = from_dict({
    "sampling": {"resolution": 64}, "flow": {"estimator": "dis"},
    "keyframes": {"detect_shots": False}, "propagation": {"method": "flow", "workers": 1},
})


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Source, keyframes, result."""
    source = write_clip(tmp_path / "clip.mp4", moving_texture(COUNT, 64, 64))
    for number in (KEY, COUNT - 2):
        write_image(tmp_path / "keys" / f"{number:06d}.png", np.full((64, 64, 3), 90, np.uint8))
    return source, tmp_path / "keys", tmp_path / "out" / "result.mp4"


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def other_size(path: Path) -> None:
    write_image(path, np.zeros((32, 48, 3), np.uint8))


@pytest.mark.parametrize("harm", [flip_bit, cut, empty, zeros, other_size])
def test_propagated_frames_are_made_anew(
    inputs: tuple[Path, Path, Path], harm: Callable[[Path], None]
) -> None:
    """One between keyframes and one at an end."""
    propagate_keys(*inputs, SETTINGS, Progress())
    output = inputs[2]
    expected = output.read_bytes()
    (folder,) = output.parent.glob("*.fresco/frames-*")
    for number in (KEY + 2, COUNT - 1):
        harm(folder / f"{number:06d}.png")
    propagate_keys(*inputs, SETTINGS, Progress())
    assert output.read_bytes() == expected


@pytest.mark.parametrize("harm", [cut, empty])
def test_what_an_interrupted_run_kept_is_made_anew(
    inputs: tuple[Path, Path, Path], harm: Callable[[Path], None]
) -> None:
    output = inputs[2]
    whole = output.with_name("whole.mp4")
    propagate_keys(*inputs[:2], whole, SETTINGS, Progress())
    token = CancelToken()

    def stop(status: StageStatus) -> None:
        if status.stage == "propagate" and status.done:
            token.cancel()

    with pytest.raises(Cancelled):
        propagate_keys(*inputs, SETTINGS, Progress(stop, token))
    space = output.with_suffix(".fresco")
    kept = list(space.rglob("*.npz"))
    kept = kept or [space / "plan.json"]
    for path in kept:
        harm(path)
    propagate_keys(*inputs, SETTINGS, Progress())
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("text", [
    "[]", "3", '{"changes": 7, "cuts": 7}', '{"changes": [NaN], "cuts": [0]}', "[" * 100_000,
    '{"changes": ["a", 0, 0, 0, 0, 0, 0], "cuts": [0, 0, 0, 0, 0, 0, 0]}', "\x00", "1" * 10_000,
])
def test_an_odd_scan_is_made_anew(inputs: tuple[Path, Path, Path], text: str) -> None:
    settings = from_dict({"keyframes": {"detect_shots": True}}, SETTINGS)  # else nothing is scanned
    propagate_keys(*inputs, settings, Progress())
    (scan,) = inputs[2].parent.glob("*.fresco/scan*.json")
    expected = scan.read_bytes()
    scan.write_text(text)
    propagate_keys(*inputs, settings, Progress())
    assert scan.read_bytes() == expected


def test_every_flipped_bit_of_a_tensor_is_found(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"a": torch.arange(6).float(), "b": torch.zeros(2, 2, dtype=torch.uint8)})
    data = path.read_bytes()
    assert set(read_tensors(path) or ()) == {"a", "b"}
    start = 8 + int.from_bytes(data[:8], "little")
    for place, bit in itertools.product(range(start, len(data)), range(8)):
        harmed = bytearray(data)
        harmed[place] ^= 1 << bit
        path.write_bytes(harmed)
        assert read_tensors(path) is None


@pytest.mark.parametrize("data", [
    b"", b"1234567", b"\xff" * 40, (4).to_bytes(8, "little") + b"[[]]",
    (2).to_bytes(8, "little") + b"{}" + b"x", (20).to_bytes(8, "little") + b'{"__metadata__": 123}',
])
def test_what_is_no_file_of_tensors_is_absent(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t").write_bytes(data)
    assert read_tensors(tmp_path / "t") is None


def test_tensors_of_version_0_1_are_read_without_a_digest(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(save({"a": torch.ones(3)}))
    known = read_tensors(tmp_path / "t")
    assert known is not None
    assert torch.equal(known["a"], torch.ones(3))


def test_damaged_archives_are_dropped(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    save_arrays(good, {"a": np.ones((8, 8), np.float32)})
    shutil.copy(good, bad)
    cut(bad)
    (tmp_path / "notes.txt").write_text("")
    drop_damaged(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.npz", "notes.txt"]


def test_no_flipped_bit_gives_another_array(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    known = save_arrays(path, {"a": np.arange(6, dtype=np.uint8).reshape(1, 2, 3)})["a"]
    data = path.read_bytes()
    for place in range(len(data)):
        harmed = bytearray(data)
        harmed[place] ^= 1 << place % 8
        path.write_bytes(harmed)
        found = (read_arrays(path) or {}).get("a")
        assert found is None or np.array_equal(found, known), place


@pytest.mark.parametrize("harm", [flip_bit, cut, empty])
def test_a_kept_frame_that_is_damaged_is_decoded_again(
    inputs: tuple[Path, Path, Path], tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """Also where it was damaged after the run began."""
    clip = open_clip(inputs[0], SETTINGS)
    frames = dataclasses.replace(clip.frames, kept=tmp_path / "source-1")
    expected = clip.frames.pick([2, 3])
    frames.keep_all([1, 2, 3], Progress())
    harm(tmp_path / "source-1" / "000003.npz")
    assert np.array_equal(frames.pick([2, 3]), expected)
    assert np.array_equal(np.stack(list(frames(2, 3))), expected)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_is_no_json(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "status.json")
    assert read_json(tmp_path / "status.json") is None


def test_a_file_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not waited for is lost in a power cut: here it is emptied before the rename."""
    lasting: set[int] = set()
    monkeypatch.setattr(
        os, "fsync", lambda file: lasting.add(os.fstat(file).st_ino)
    )
    replace = Path.replace

    def lose(self: Path, target: Path) -> Path:
        if self.stat().st_ino not in lasting:
            self.write_bytes(b"")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", lose)
    write_json(tmp_path / "a.json", {"a": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
