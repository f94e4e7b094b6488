"""At which size keyframes are carried to all frames."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from fresco.cli.main import main
from fresco.errors import SettingsError
from fresco.hosts.diffusers.load import load_host
from fresco.options import from_dict
from fresco.progress import Progress
from fresco.run.clip import open_clip
from fresco.run.external_keyframes import choose_size
from fresco.run.translate import RunResult, propagate_keys, translate
from fresco.settings import FrescoSettings
from fresco.video.reader import open_source
from fresco.video.size import carried_size
from fresco.workspace import read_image, write_image
from tests.helpers.clips import moving_texture, write_clip

HEIGHT, WIDTH, FRAMES = 90, 160, 5


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, moving_texture(FRAMES, HEIGHT, WIDTH))


def make_settings(resolution: int = 0, **output: object) -> FrescoSettings:
    return from_dict({
        "flow": {"estimator": "dis"}, "keyframes": {"detect_shots": False},
        "propagation": {"method": "flow", "workers": 1, "resolution": resolution},
        "output": output,
    })


@pytest.mark.parametrize(("sizes", "wanted", "output", "size"), [
    ([(160, 90)], 0, {}, (160, 90)),  # as the source: nothing is scaled
    ([(320, 180)], 0, {}, (160, 90)),  # the result could not show more
    ([(320, 180)], 0, {"source_size": False}, (320, 180)),
    ([(107, 60)], 0, {}, (107, 60)),  # the source's shape, rounded
    ([(80, 80)], 0, {}, (142, 80)),  # another shape: the source's counts
    ([(107, 60), (107, 60), (160, 90)], 0, {}, (107, 60)),  # most of them
    ([(107, 60)], 72, {}, (128, 72)),
    ([(107, 60)], 90, {}, (160, 90)),
    ([(107, 60)], 180, {}, (320, 180)),  # asked for
])
def test_it_is_that_of_most_keyframes(
    clip: Path, tmp_path: Path, sizes: list[tuple[int, int]], wanted: int,
    output: dict[str, bool], size: tuple[int, int],
) -> None:
    images = {n: tmp_path / f"{n}.png" for n in range(len(sizes))}
    for path, (width, height) in zip(images.values(), sizes, strict=True):
        write_image(path, np.zeros((height, width, 3), np.uint8))
    settings = make_settings(wanted, **output)
    assert choose_size(images, open_clip(clip, settings), settings) == (size, ())


def test_a_servers_limit_is_told(clip: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "0.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    settings = make_settings()
    size, (note,) = choose_size({0: tmp_path / "0.png"}, open_clip(clip, settings), settings, 72)
    assert size == (128, 72)
    assert "72 instead of 90 pixels" in note


@pytest.mark.parametrize("short", range(64, 200, 9))
def test_sides_are_even_and_keep_the_shape(short: int) -> None:
    width, height = carried_size(1279, 719, short)
    assert width % 2 == height % 2 == 0
    assert abs(height - short) <= 1
    assert abs(width - short * 1279 / 719) <= 1


def test_external_keyframes_come_through_as_they_are(clip: Path, tmp_path: Path) -> None:
    """In the lossless result a keyframe is the image that was given, of the source's odd size."""
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    write_image(tmp_path / "keys" / "0.png", image)
    result = propagate_keys(clip, tmp_path / "keys", tmp_path / "frames", make_settings(),
                            Progress())
    first = read_image(result.output / "0000.png")
    assert first is not None
    assert np.array_equal(first, image)


def test_the_former_flag_goes_on_to_work(clip: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "keys" / "0.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    words = ["propagate", str(clip), "--keys", str(tmp_path / "keys"), "--resolution", "72",
             "--propagation", "flow", "--flow", "dis", "--no-source-size", "-q",
             "-o", str(tmp_path / "out.mp4")]
    assert main(words) == 0
    with open_source(str(tmp_path / "out.mp4")) as made:
        assert (made.info.width, made.info.height) == (128, 72)


def test_a_size_too_small_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"propagation\.resolution is 8; give 0, or 64 to 4320"):
        make_settings(8)


def test_translated_keyframes_are_enlarged(clip: Path, tmp_path: Path, demo_model: Path) -> None:
    """The frames between them have the larger size; a second run makes nothing, and another
    keyframe is enlarged anew."""
    settings = from_dict({
        "sampling": {"model": str(demo_model), "resolution": 64, "steps": 2, "strength": 0.5},
        "guidance": {"optimization_iterations": 1},
        "keyframes": {"keys": "0,4", "batch_size": 3, "detect_shots": False},
    }, make_settings(HEIGHT))
    host = load_host(settings.sampling, offline=True)

    def run() -> RunResult:
        return translate(clip, tmp_path / "out.mkv", settings, lambda: host, Progress())

    result = run()
    assert result.report is not None
    report = json.loads(result.report.read_text())
    assert report["working_size"] == [128, 64]
    assert report["measures"]["frames"]["fresco"]["pairs"] == FRAMES - 1
    (enlarged,) = result.workspace.glob("enlarged-*")
    (keys,) = result.workspace.glob("keys-*")
    (frames,) = result.workspace.glob("frames-*")
    for place in (enlarged / "000004.png", frames / "000002.png"):
        image = read_image(place)
        assert image is not None
        assert image.shape == (HEIGHT, WIDTH, 3)
    before = {path: path.stat().st_mtime_ns for path in enlarged.glob("*.png")}
    run()
    assert {path: path.stat().st_mtime_ns for path in enlarged.glob("*.png")} == before
    write_image(keys / "000004.png", np.full((64, 128, 3), 200, np.uint8))
    run()
    after = read_image(enlarged / "000004.png")
    assert after is not None
    assert np.abs(cv2.blur(after, (3, 3)).astype(int) - 200).max() <= 1
    assert (enlarged / "000000.png").stat().st_mtime_ns == before[enlarged / "000000.png"]
