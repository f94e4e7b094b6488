"""Motion from files: formats, sizes, and the way over several frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fresco.errors import PropagationError, SettingsError
from fresco.flow import files
from fresco.flow.estimator import create_estimator
from fresco.flow.exact import open_exact, write_index
from fresco.flow.files import FileFlow, FlowFiles, list_flow_files, measure_flow, read_flow
from fresco.flow.motion import estimate_motion
from fresco.flow.tensors import to_images
from fresco.settings import FlowSettings
from tests.helpers.clips import moving_texture

HEIGHT, WIDTH, COUNT = 40, 56, 6
STEP = (2.0, 1.0)


def flat(x: float, y: float, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.float32]:
    return np.full((height, width, 2), (x, y), np.float32)


def write_flo(path: Path, flow: NDArray[np.float32]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = flow.shape[:2]
    with path.open("wb") as file:
        file.write(np.array([202021.25], "<f4").tobytes())
        file.write(np.array([width, height], "<i4").tobytes())
        file.write(flow.astype("<f4").tobytes())
    return path


def write_steps(folder: Path, count: int = COUNT, **further: NDArray) -> Path:
    """Steady motion as .npz, one file a frame."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        np.savez(folder / f"{number:04d}.npz", forward=flat(*STEP),
                 backward=flat(-STEP[0], -STEP[1]), **further)
    return folder


def test_flo_and_npz_are_read_as_they_were_written(tmp_path: Path) -> None:
    flow = np.random.default_rng(0).normal(size=(5, 7, 2)).astype(np.float32)
    ahead = write_flo(tmp_path / "forward" / "f_0003.flo", flow)
    write_flo(tmp_path / "backward" / "f_0004.flo", -flow)
    found = list_flow_files(tmp_path)
    assert {d: list(paths) for d, paths in found.paths.items()} == {
        "forward": [3], "backward": [4]}
    assert np.array_equal(read_flow(found.paths["forward"][3], "forward").flow, flow)
    assert measure_flow(ahead, "forward") == (7, 5)
    hidden = np.zeros((5, 7), np.uint8)
    hidden[2, 3] = 1
    np.savez(tmp_path / "9.npz", forward=flow.astype(np.float64), forward_occlusion=hidden)
    packed = read_flow(tmp_path / "9.npz", "forward")
    assert np.allclose(packed.flow, flow)
    assert packed.hidden is not None
    assert packed.hidden.sum() == 1
    assert measure_flow(tmp_path / "9.npz", "forward") == (7, 5)


def test_blenders_vectors_are_turned_to_pixels_that_count_downward() -> None:
    """X and Y lead to the previous frame; Z and W come from the next one; y counts upward."""
    channels = {f"ViewLayer.Vector.{letter}": np.full((2, 3), value, np.float32)
                for letter, value in zip("XYZW", (-2, 1, -3, 4), strict=True)}
    channels |= {f"ViewLayer.Combined.{c}": np.zeros((2, 3), np.float32) for c in "RGBA"}
    picked = files._pick_vector(channels, Path("a.exr"))
    assert [channel[0, 0] for channel in picked] == [-2, 1, -3, 4]
    with pytest.raises(SettingsError, match="holds no Vector pass"):
        files._pick_vector({"Depth.V": channels["ViewLayer.Vector.X"]}, Path("a.exr"))


@pytest.mark.parametrize("prefix", ["", "ViewLayer.Vector."])
def test_exr_files_are_read(tmp_path: Path, prefix: str) -> None:
    openexr = pytest.importorskip("OpenEXR")
    letters = "XYZW" if prefix else "RGBA"
    channels = {prefix + letter: np.full((4, 6), value, np.float32)
                for letter, value in zip(letters, (-2, 1, -3, 4), strict=True)}
    path = tmp_path / "0007.exr"
    openexr.File({"type": openexr.scanlineimage}, channels).write(str(path))
    assert measure_flow(path, "forward") == (6, 4)
    assert (read_flow(path, "backward").flow == (-2, -1)).all()
    assert (read_flow(path, "forward").flow == (3, 4)).all()
    found = list_flow_files(tmp_path)
    assert set(found.paths["forward"]) == set(found.paths["backward"]) == {7}


def test_vectors_are_scaled_with_the_sides() -> None:
    hidden = np.zeros((HEIGHT, WIDTH), bool)
    hidden[:, 20:] = True
    small = FileFlow(flat(4, 2), hidden).resize((WIDTH // 2, HEIGHT // 4))
    assert small.flow.shape == (HEIGHT // 4, WIDTH // 2, 2)
    assert np.allclose(small.flow, (2, 0.5))
    assert small.hidden is not None
    assert small.hidden[:, 10:].all()
    assert not small.hidden[:, :10].any()


def open_steady(folder: Path, **further: NDArray) -> tuple[FlowSettings, list[NDArray[np.uint8]]]:
    frames = moving_texture(COUNT, HEIGHT, WIDTH, motion=(2, 1))
    listed = list_flow_files(write_steps(folder / "flow", **further))
    write_index(folder / "index.json", listed, enumerate(frames), "x")
    return FlowSettings("files", str(folder / "index.json")), frames


def test_frames_are_known_by_what_they_show_and_ways_are_composed(tmp_path: Path) -> None:
    settings, frames = open_steady(tmp_path)
    estimator = create_estimator(settings)
    assert (estimator.name, estimator.device) == ("files", "cpu")
    for start, end in ((0, 1), (1, 5), (4, 2), (3, 3)):
        motion = estimate_motion(frames[start], frames[end], estimator)
        step = np.array(STEP) * (end - start)
        assert np.allclose(motion.forward, step, atol=1e-4)
        assert np.allclose(motion.backward, -step, atol=1e-4)
        inside = motion.forward_occlusion[10:-10, 12:-12]
        assert inside.mean() < 0.1 if end == start else not inside.any()
    images = to_images(np.stack(frames[:3]))
    forward, backward = estimator.estimate(images[:1], images[2:])
    assert torch.allclose(forward, -backward)
    assert float(forward[0, 0, 0, 0]) == pytest.approx(4)
    with pytest.raises(PropagationError, match="not a frame of the clip"):
        estimate_motion(255 - frames[0], frames[1], estimator)


def test_of_equal_frames_the_nearest_pair_is_meant(tmp_path: Path) -> None:
    frames = moving_texture(2, HEIGHT, WIDTH)
    listed = list_flow_files(write_steps(tmp_path / "flow"))
    shown = [frames[0], frames[1], frames[0], frames[1]]
    write_index(tmp_path / "i.json", listed, enumerate(shown), "x")
    assert open_exact(tmp_path / "i.json")._find(frames[1], frames[0]) in ((1, 0), (1, 2))


def test_what_a_file_calls_hidden_is_hidden_also_on_the_way(tmp_path: Path) -> None:
    hidden = np.zeros((HEIGHT, WIDTH), bool)
    hidden[:, 30] = True
    settings, frames = open_steady(tmp_path, forward_occlusion=hidden)
    motion = estimate_motion(frames[0], frames[2], create_estimator(settings))
    assert motion.forward_occlusion[5:30, 30].all()
    assert motion.forward_occlusion[5:30, 28].all()  # hidden one step later
    assert not motion.forward_occlusion[5:30, 10:26].any()


def test_an_index_is_needed() -> None:
    with pytest.raises(SettingsError, match="Motion from files works in whole runs only"):
        create_estimator(FlowSettings("files", ""))


def write_nothing(folder: Path) -> None:
    folder.mkdir(exist_ok=True)


@pytest.mark.parametrize(("make", "said"), [
    (write_nothing, "holds no motion"),
    (lambda f: write_flo(f / "0001.flo", flat(0, 0)), "does not say which way"),
    (lambda f: write_flo(f / "forward.flo", flat(0, 0)), "holds no frame number"),
    (lambda f: [write_flo(f / name, flat(0, 0)) for name in ("forward_1.flo", "fwd_01.flo")],
     "both are the forward motion of frame 1"),
    (lambda f: np.savez(write_folder(f) / "1.npz", flow=flat(0, 0)), "no array"),
    (lambda f: (write_folder(f) / "1.npz").write_bytes(b"no archive"), "cannot be read"),
])
def test_folders_that_cannot_be_understood_are_refused(
    tmp_path: Path, make: object, said: str
) -> None:
    assert callable(make)
    make(tmp_path / "flow")
    with pytest.raises(SettingsError, match=said):
        list_flow_files(tmp_path / "flow")


def write_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_damaged_flo_files_are_refused(tmp_path: Path) -> None:
    path = write_flo(tmp_path / "forward_1.flo", flat(0, 0))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(SettingsError, match="cut off or damaged"):
        measure_flow(path, "forward")
    path.write_bytes(b"RIFF" + bytes(20))
    with pytest.raises(SettingsError, match=r"not a \.flo file"):
        measure_flow(path, "forward")


def test_files_of_an_unknown_frame_are_asked_for_by_name(tmp_path: Path) -> None:
    frames = moving_texture(2, HEIGHT, WIDTH)
    write_index(tmp_path / "i.json", FlowFiles({"forward": {}, "backward": {}}),
                enumerate(frames), "x")
    with pytest.raises(PropagationError, match="forward motion of frame 0"):
        open_exact(tmp_path / "i.json").estimate_frames(frames[0], frames[1])
