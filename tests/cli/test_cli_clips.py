"""Commands that need no model, on real files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from fresco.cli.main import main
from fresco.planning.parsing import parse_keys

FRAMES = 12


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder of pictures: a square that jumps at frame 5."""
    folder = tmp_path / "square"
    folder.mkdir()
    for number in range(FRAMES):
        image = np.full((48, 64, 3), 60, np.uint8)
        left = number + (20 if number >= 5 else 0)
        image[10:30, left:left + 20] = (40, 200, 240)
        cv2.imwrite(str(folder / f"{number:04d}.png"), image)
    return folder


def test_keyframes_are_shown_and_read_back(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--min-interval", "3", "--max-interval", "6", "--no-detect-shots"]
    path = tmp_path / "keys.json"
    assert main(["keyframes", str(clip), *words, "--json", "-o", str(path)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads(path.read_text())
    assert shown["keyframes"] == [0, 5, 11]
    assert shown["shots"] == [{"first": 0, "last": 11, "keyframes": [0, 5, 11],
                               "batches": [{"anchors": [], "frames": [0, 5, 11]}]}]
    assert parse_keys(str(path), FRAMES) == (0, 5, 11)
    assert main(["keyframes", str(clip), "--keys", str(path), "--no-detect-shots", "-q"]) == 0
    assert capsys.readouterr().out.endswith("1 batches: 0,5,11\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["keys.json", "square"]


def test_a_range_of_frames_keeps_the_numbers_of_the_source(
    clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--first-frame", "2", "--last-frame", "9", "--no-detect-shots", "--json"]
    assert main(["keyframes", str(clip), *words, "--max-interval", "30"]) == 0
    assert json.loads(capsys.readouterr().out)["keyframes"] == [2, 9]


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [(["--keys", "3,40"], 2, "Keyframe 40"), (["--last-frame", "12"], 2, "--last-frame is 12")],
)
def test_numbers_beyond_the_clip_are_named(
    words: list[str], code: int, named: str, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keyframes", str(clip), "-q", *words]) == code
    assert named in capsys.readouterr().err


def test_a_file_that_is_no_clip_is_an_input_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("no video")
    assert main(["keyframes", str(path)]) == 3
    assert "notes.mp4" in capsys.readouterr().err


def test_compare_writes_panels_side_by_side(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "side.mp4"
    assert main(["compare", str(clip), str(clip), str(clip), "-o", str(output), "-q"]) == 0
    video = cv2.VideoCapture(str(output))
    size = [int(video.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_COUNT)]
    video.release()
    assert size == [3 * 64, FRAMES]


def test_compare_takes_results_of_a_part(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The panel of the source begins where the part does."""
    part, output = tmp_path / "part", tmp_path / "side"
    part.mkdir()
    for number, path in enumerate(sorted(clip.glob("*.png"))[3:8]):
        (part / f"{number}.png").write_bytes(path.read_bytes())
    words = ["compare", str(clip), str(part), "--first-frame", "3", "-q", "-o", f"{output}.mkv"]
    assert main(words) == 0
    video = cv2.VideoCapture(f"{output}.mkv")
    count = 0
    while (read := video.read())[0]:
        left, right = np.split(np.asarray(read[1], np.int16)[28:], 2, axis=1)
        assert np.abs(left - right)[:, 8:-8].mean() < 3
        count += 1
    assert count == 5
    assert main(["compare", str(part), str(clip), "-q", "-o", f"{output}.mp4"]) == 3
    assert "have 5, 12 frames" in capsys.readouterr().err


@pytest.mark.parametrize("quality", ["balanced", "draft"])
def test_own_keyframes_are_carried_to_all_frames(
    clip: Path, tmp_path: Path, quality: str
) -> None:
    keys, output = tmp_path / "keys", tmp_path / "result"
    keys.mkdir()
    for number in (0, 5, 11):
        image = cv2.imread(str(clip / f"{number:04d}.png"))
        assert image is not None
        cv2.imwrite(str(keys / f"style_{number:03d}.png"), 255 - image)
    words = ["--keys", str(keys), "-o", str(output), "--flow", "dis", "--resolution", "64",
             "--no-detect-shots", "--workers", "1", "-q", "--propagation-quality", quality]
    assert main(["propagate", str(clip), *words]) == 0
    pictures = sorted(output.glob("*.png"))
    assert len(pictures) == FRAMES
    for number, path in enumerate(pictures):
        image, source = cv2.imread(str(path)), cv2.imread(str(clip / f"{number:04d}.png"))
        assert image is not None
        assert source is not None
        # The background is dark in the source and light in the style.
        assert image.shape == source.shape
        assert image.mean() > 150 > source.mean()
