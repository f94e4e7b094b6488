"""Which frames a call translates, and in which batches."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fresco.errors import SettingsError, VideoError
from fresco.webui.img2img.frames import collect_frames
from fresco.webui.img2img.request import Request, parse_arguments
from fresco.workspace import frame_name, write_image
from tests.helpers.clips import write_clip
from tests.helpers.moving_square import draw_frame, draw_mask, overlap, write_mask


def images(count: int, width: int = 40, height: int = 32) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [
        Image.fromarray(random.integers(0, 255, (height, width, 3), np.uint8))
        for _ in range(count)
    ]


def asked(**options: object) -> Request:
    request = parse_arguments([options])
    assert request is not None
    return request


def test_images_are_keyframes_of_one_shot() -> None:
    frames = collect_frames(asked(batch_size=4), images(9))
    assert frames.numbers == tuple(range(9))
    assert [batch.all for batch in frames.batches] == [
        (0, 1, 2, 3), (0, 3, 4, 5), (0, 5, 6, 7, 8),
    ]
    assert [batch.anchors for batch in frames.batches] == [(), (0, 3), (0, 5)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_images_are_one_batch(count: int) -> None:
    (batch,) = collect_frames(asked(), images(count)).batches
    assert batch.frames == tuple(range(count))


@pytest.mark.parametrize("given", [[], [None]])
@pytest.mark.parametrize("options", [{}, {"last_frame": 4}])
def test_no_image(given: list[Image.Image | None], options: dict[str, int]) -> None:
    with pytest.raises(VideoError, match=r"There is no frame\. Give FRESCO a video"):
        collect_frames(asked(**options), given)


@pytest.mark.parametrize(("options", "said"), [
    ({"keys": "0,1"}, r"keyframes\.keys cannot choose among .*init_images"),
    ({"first_frame": 2, "last_frame": 4}, r"first_frame and output\.last_frame cannot choose"),
])
def test_images_leave_nothing_to_choose(options: dict[str, str | int], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        collect_frames(asked(**options), images(3))


def test_images_of_different_sizes() -> None:
    with pytest.raises(VideoError, match="40x32, 48x32"):
        collect_frames(asked(), [*images(2), *images(1, 48)])


def test_folder_with_a_cut_makes_two_shots(tmp_path: Path) -> None:
    for number in range(12):
        value = 20 if number < 6 else 230
        Image.new("RGB", (64, 64), (value, value, value)).save(tmp_path / f"{number:03d}.png")
    frames = collect_frames(asked(path=str(tmp_path), min_interval=2, max_interval=3), [])
    assert [batch.anchors for batch in frames.batches] == [(), ()]
    first, second = frames.batches
    assert [frames.numbers[place] for place in first.frames] == [0, 2, 5]
    assert [frames.numbers[place] for place in second.frames] == [6, 8, 11]
    assert [image.getpixel((0, 0)) for image in frames.images] == [(20,) * 3] * 3 + [(230,) * 3] * 3
    assert any("2 shots" in note for note in frames.notes)


def test_a_few_masks_are_drawings_that_are_carried_to_the_keyframes(tmp_path: Path) -> None:
    for number in range(8):
        write_image(tmp_path / "frames" / frame_name(number), draw_frame(number))
    for number in (0, 7):
        write_mask(tmp_path / "masks" / frame_name(number), draw_mask(number))
    frames = collect_frames(asked(
        path=str(tmp_path / "frames"), masks=str(tmp_path / "masks"), keys="0,3,7",
        detect_shots=False, estimator="dis",
    ), [])
    assert frames.numbers == (0, 3, 7)
    for number, mask in zip(frames.numbers, frames.masks, strict=True):
        assert mask.size == frames.images[0].size
        assert overlap(np.asarray(mask) > 127, draw_mask(number)) > 0.8


def mean_overlap(masks: tuple[Image.Image, ...], numbers: tuple[int, ...]) -> float:
    return float(np.mean([overlap(np.asarray(mask) > 127, draw_mask(number))
                          for number, mask in zip(numbers, masks, strict=True)]))


def encode(number: int) -> str:
    file = io.BytesIO()
    Image.fromarray(draw_mask(number)).convert("L").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def draw_clip(folder: Path) -> str:
    for number in range(LAST + 1):
        write_image(folder / frame_name(number), draw_frame(number))
    return str(folder)


LAST = 4
CARRIED = {"keys": f"0,2,{LAST}", "detect_shots": False, "estimator": "dis"}


def test_a_drawing_of_one_frame_is_tracked_however_it_comes(tmp_path: Path) -> None:
    """By a program, or painted in img2img on a frame that the tab has sent there."""
    clip = draw_clip(tmp_path / "frames")
    options = {**CARRIED, "path": clip}
    sent = {str(LAST): encode(LAST)}
    found = collect_frames(asked(**options, mask_source="drawing", masks=sent), [])
    assert mean_overlap(found.masks, found.numbers) > 0.75
    found = collect_frames(asked(**options, mask={"source": "drawing"}, masks=[encode(0)]), [])
    assert mean_overlap(found.masks, found.numbers) > 0.75
    painted = Image.fromarray(draw_frame(LAST))
    painted.info["parameters"] = f"a fox\nSteps: 20, FRESCO frame: {LAST}, FRESCO source: x"
    own = Image.fromarray(draw_mask(LAST))
    found = collect_frames(asked(**options, mask_source="drawing"), [painted], own)
    assert mean_overlap(found.masks, found.numbers) > 0.75
    assert any(f"drawn on frame {LAST}" in note for note in found.notes)
    plain = collect_frames(asked(**options), [painted], own)
    assert plain.masks == (), "without a wish, img2img's mask is that of all frames, as ever"


def test_masks_are_found_in_a_source_and_in_images(tmp_path: Path) -> None:
    options = {**CARRIED, "path": draw_clip(tmp_path / "frames")}
    found = collect_frames(asked(**options, mask_source="motion"), [])
    assert mean_overlap(found.masks, found.numbers) > 0.4
    given = [Image.fromarray(draw_frame(number)) for number in range(LAST + 1)]
    found = collect_frames(asked(mask_source="motion", estimator="dis"), given)
    assert mean_overlap(found.masks, found.numbers) > 0.4
    found = collect_frames(
        asked(mask_source="drawing", estimator="dis", masks={"0": encode(0)}), given)
    assert mean_overlap(found.masks, found.numbers) > 0.75


def test_a_second_video_holds_the_masks(tmp_path: Path) -> None:
    """What its codec leaves in black is black."""
    options = {**CARRIED, "path": draw_clip(tmp_path / "frames")}
    video = write_clip(tmp_path / "m.mp4", [
        np.repeat((draw_mask(n) * np.uint8(255))[..., None], 3, axis=2) for n in range(LAST + 1)])
    found = collect_frames(asked(**options, masks=str(video)), [])
    assert mean_overlap(found.masks, found.numbers) > 0.97
    for number, mask in zip(found.numbers, found.masks, strict=True):
        far = cv2.dilate(draw_mask(number).astype(np.uint8), np.ones((17, 17))) == 0
        assert not np.asarray(mask)[far].any()


@pytest.mark.parametrize(("options", "said"), [
    ({"mask_source": "motion", "masks": "x.png"}, "finds the masks, but masks are given"),
    ({"mask_source": "files"}, "there is no mask; name it as FRESCO masks"),
    ({"mask_source": "drawing"}, "or paint it in Inpaint"),
    ({"mask_source": "drawing", "masks": [encode(0)] * 2}, "masks is a list of 2; give an object"),
    ({"mask_source": "files", "masks": {"0": encode(0)}}, "masks holds drawings of some frames"),
    ({"mask_source": "drawing", "masks": {"9": encode(0)}}, "9"),
])
def test_masks_that_are_not_what_is_said(
    tmp_path: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        collect_frames(asked(**CARRIED, path=draw_clip(tmp_path / "frames"), **options), [])


def test_missing_path() -> None:
    with pytest.raises(VideoError, match=r"/no/where\.mp4 does not exist"):
        collect_frames(asked(path="/no/where.mp4"), [])
