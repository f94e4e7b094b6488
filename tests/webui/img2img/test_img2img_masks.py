"""Inpainting: what a mask keeps is each frame's own, be there one mask or one for each."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.broken_videos import started_png
from tests.helpers.moving_square import HEIGHT, SIDE, WIDTH, draw_frame, draw_mask, find_corner
from tests.helpers.webui.client import Host, Refused
from tests.helpers.webui.http_host import text_of
from tests.helpers.webui.requests import INPAINT, NONE, QUICK, band, frames, pixels

FADES = 12
"""Pixels beside a mask's edge that its blur touches."""


def png_header(side: int) -> str:
    """A PNG that names a size and holds no pixel."""
    return base64.b64encode(started_png(side)).decode()


def saved(masks: list[Image.Image], folder: Path) -> str:
    folder.mkdir()
    for number, mask in enumerate(masks):
        mask.save(folder / f"{number:03d}.png")
    return str(folder)


def check_kept(found: Any, given: list[Image.Image], tops: list[int]) -> None:
    """Rows far from a frame's band are exactly its own; those of the band are new."""
    for picture, frame, top in zip(found, given, tops, strict=True):
        difference = np.abs(picture - np.asarray(frame, np.float32)).max((1, 2))
        rows = np.arange(len(difference))
        far = (rows < top - FADES) | (rows >= top + 16 + FADES)
        assert far.sum() >= 20
        assert difference[far].max() == 0
        assert difference[top + 2:top + 14].min() > 0


TOPS = [0, 8, 16, 24, 32, 40, 48]


def test_every_frame_keeps_what_its_own_mask_says(host: Host) -> None:
    given = frames(7)
    masks = [text_of(band(top)) for top in TOPS]
    options = QUICK | {"batch_size": 4, "masks": masks, "consensus": True}
    answer = host.img2img(given, options, **INPAINT)
    check_kept(pixels(answer), given, TOPS)


@pytest.mark.parametrize("fill", [0, 1, 2, 3])
def test_masked_content(host: Host, fill: int) -> None:
    given, tops = frames(3), [0, 24, 48]
    masks = [text_of(band(top)) for top in tops]
    payload = INPAINT | {"inpainting_fill": fill}
    check_kept(pixels(host.img2img(given, NONE | {"masks": masks}, **payload)), given, tops)


def test_folder_of_masks_of_a_folder_of_frames(host: Host, tmp_path: Path) -> None:
    """A keyframe's mask is the one with its number, not with its place among the keyframes."""
    given = [Image.new("RGB", (64, 64), (shade, 90, 60)) for shade in range(40, 180, 20)]
    options = NONE | {
        "path": saved(given, tmp_path / "frames"), "masks": saved([band(t) for t in TOPS],
        tmp_path / "masks"), "keys": "0,3,6", "detect_shots": False,
    }
    answer = host.img2img([], options, **INPAINT)
    check_kept(pixels(answer), given[::3], TOPS[::3])


@pytest.mark.parametrize("many", [False, True])
def test_one_mask_for_all_is_the_one_of_img2img(
    host: Host, tmp_path: Path, many: bool
) -> None:
    """The same pictures, whether it comes once as a file, once as text, or is img2img's own."""
    given, mask = frames(7), band(20)
    options = NONE | {"batch_size": 4}
    if many:
        sent: Any = saved([mask], tmp_path / "masks")
    else:
        sent = [text_of(mask)]
    own = host.img2img(given, options | {"masks": sent}, **INPAINT)
    theirs = host.img2img(given, options, mask=mask, **INPAINT)
    assert np.array_equal(pixels(own), pixels(theirs))
    check_kept(pixels(own), given, [20] * 7)


def test_the_mask_of_img2img_is_tracked_as_a_drawing(host: Host, tmp_path: Path) -> None:
    """Painted on the first frame, it follows the square; what the square has left is kept."""
    given = [Image.fromarray(draw_frame(number)) for number in range(9)]
    options = NONE | {
        "path": saved(given, tmp_path / "frames"), "keys": "0,4,8", "detect_shots": False,
        "mask_source": "drawing",
    }
    answer = host.img2img(
        [], options, mask=Image.fromarray(draw_mask(0)).convert("L"), mask_blur=2,
        **(INPAINT | {"width": WIDTH, "height": HEIGHT}),
    )
    for number, image in zip((0, 4, 8), pixels(answer), strict=True):
        changed = np.abs(image - draw_frame(number)).max(axis=2) > 0
        row, column = find_corner(number)
        assert changed[row + 6:row + SIDE - 6, column + 6:column + SIDE - 6].mean() > 0.9
        assert not changed[:, column + SIDE + 12:].any()
        assert changed[:, :max(0, column - 12)].sum() < SIDE**2 / 2, "crumbs, not the square"


def test_equal_masks_are_as_good_as_one(host: Host) -> None:
    given, text = frames(4), text_of(band(20))
    one = host.img2img(given, NONE | {"masks": [text]}, **INPAINT)
    many = host.img2img(given, NONE | {"masks": [text] * 4}, **INPAINT)
    assert np.array_equal(pixels(one), pixels(many))


def test_a_mask_may_be_what_is_not_transparent(host: Host) -> None:
    """As img2img itself takes masks."""
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (0, 20, 64, 36))
    given = frames(3)
    options = NONE | {"masks": [text_of(clear)]}
    check_kept(pixels(host.img2img(given, options, **INPAINT)), given, [20] * 3)


def test_a_returned_mask_is_the_pictures_own(host: Host) -> None:
    options = NONE | {"batch_size": 4, "masks": [text_of(band(top)) for top in TOPS]}
    returned = {"override_settings": {"return_mask": True}}
    answer = host.img2img(frames(7), options, **INPAINT, **returned)
    masks = pixels(answer)[1::2, :, 0, 0]
    assert len(masks) == 7
    rows = np.arange(64)
    middles = [(rows * mask).sum() / mask.sum() for mask in masks]
    assert middles == sorted(middles)
    assert len(set(middles)) == 7


def test_colours_are_corrected_within_each_mask(host: Host) -> None:
    given, tops = frames(3), [0, 24, 48]
    options = NONE | {"masks": [text_of(band(top)) for top in tops]}
    corrected = {"override_settings": {"img2img_color_correction": True}}
    check_kept(pixels(host.img2img(given, options, **INPAINT, **corrected)), given, tops)


@pytest.mark.parametrize(("masks", "payload", "said"), [
    ([text_of(band(0))] * 2, {}, "There are 2 masks for 3 frames; give one for all"),
    ([text_of(band(0, size=(32, 64)))] * 3, {}, "The mask is 32x64, the frames are 64x64"),
    ([], {"mask": band(0, size=(64, 32))}, "The mask is 64x32, the frames are 64x64"),
    ([text_of(band(0))], {"mask": band(0)}, "a mask of img2img, and there are masks of FRESCO"),
    ([text_of(band(0))], {"inpaint_full_res": True}, "Inpaint area is Only masked"),
    (["***"], {}, "masks[0] is not base64"),
    (["AAECAw=="], {}, "masks[0] cannot be read as an image (4 bytes)"),
    ([png_header(8000)], {}, "The mask is 8000x8000, the frames are 64x64"),
    ([png_header(50_000)], {}, "masks[0] cannot be read as an image"),
    ([png_header(64)], {}, "masks[0] is a damaged image (PNG)"),
    ([text_of(band(0)), 3], {}, "masks[1] is int; give a text."),
    ([text_of(band(0)), ""], {}, "masks[1] is empty"),
    (3, {}, "masks is int; give a text."),
    ("/no/where", {}, "/no/where does not exist"),
])
def test_masks_that_do_not_fit(
    host: Host, masks: Any, payload: dict[str, Any], said: str
) -> None:
    with pytest.raises(Refused) as caught:
        host.img2img(frames(3), NONE | {"masks": masks}, **(INPAINT | payload))
    assert caught.value.status == 422
    assert said in caught.value.detail
