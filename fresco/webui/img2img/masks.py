"""Masks of an inpainting: one for all frames, one for each, a few that are tracked, or found ones.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image, fromarray
from PIL.Image import open as open_image

from fresco.errors import SettingsError
from fresco.masks.edge import Share, read_levels
from fresco.settings import MaskSettings
from fresco.temporary import open_temporary_folder
from fresco.video.folder import FRAMES_MARK, find_images
from fresco.video.numbering import number_images
from fresco.video.reader import VideoReader, open_source
from fresco.webui.img2img.request import Request

Size = tuple[int, int]
"""Width and height."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """The mask that was painted in img2img."""

    mask: Image
    """The mask as img2img gives it."""
    frame: int
    """Number of the frame that it was painted on."""


def collect_masks(request: Request, numbers: Sequence[int], count: int, size: Size
             ) -> tuple[Image, ...]:
    """Read one mask for all keyframes, or one for each of them; empty if there is none.

    Args:
        numbers: of the keyframes in the source
        count: frames of the source
        size: of every frame
    """
    if request.masks_path:
        return _masks_in(Path(request.masks_path), numbers, count, size)
    if not request.masks:
        return ()
    _require_count(len(request.masks), count)
    masks = [_open_mask(data, place, size) for place, data in enumerate(request.masks)]
    wanted = (0,) if len(masks) == 1 else numbers
    return tuple(_decode(masks[place], place) for place in wanted)


@contextmanager
def open_tracked(
    request: Request, own: Drawing | None, first: int, count: int, size: Size
) -> Iterator[MaskSettings | None]:
    """Within the context, the masks that are tracked to the keyframes, or found in the frames.

    None if there is one mask for all frames or one for each.

    Args:
        own: the mask of img2img itself.
        first: number of the first frame that is used.
        count: frames of the source.
        size: of every frame.
    """
    source = request.settings.mask.source
    _require_fitting(request, own is not None)
    if request.finds_masks:
        yield MaskSettings(source, feather=0)
        return
    drawn = {number: _open_drawing(data, number, size) for number, data in request.drawings.items()}
    if source == "drawing" and not drawn and not request.masks_path:
        drawn = {own.frame: own.mask} if own else {first: _open_mask(request.masks[0], 0, size)}
    if drawn:
        with open_temporary_folder() as folder:
            for number, mask in drawn.items():
                _to_grey(mask).save(folder / f"{number:06d}.png")
            (folder / FRAMES_MARK).touch()
            yield MaskSettings("drawing", str(folder), feather=0)
        return
    path = Path(request.masks_path)
    several = False
    if source == "none" and request.masks_path and path.is_dir():
        images = find_images(path)[0]
        several = 1 < len(images) < count and number_images(images) is not None
    tracked = several or source == "drawing"
    yield MaskSettings("drawing", str(path), feather=0) if tracked else None


def _require_fitting(request: Request, own: bool) -> None:
    """Raise SettingsError if the given masks do not fit the option mask.source."""
    source, given = request.settings.mask.source, bool(request.masks or request.masks_path)
    if request.finds_masks and (given or request.drawings):
        raise SettingsError(
            f"mask.source is {source!r}, which finds the masks, but masks are given; leave them "
            "out, or choose drawing or files."
        )
    if request.drawings and source == "files":
        raise SettingsError(
            "mask.source is 'files', but masks holds drawings of some frames; give a list with one "
            "for every frame, or choose drawing."
        )
    if source == "drawing" and len(request.masks) > 1:
        raise SettingsError(
            f"mask.source is 'drawing', but masks is a list of {len(request.masks)}; give an "
            'object of drawings by frame number, such as {"12": "..."}.'
        )
    drawn = given or own or bool(request.drawings)
    if (source == "files" and not given) or (source == "drawing" and not drawn):
        more = ", or paint it in Inpaint" if source == "drawing" else ""
        raise SettingsError(
            f"mask.source is {source!r}, but there is no mask; name it as FRESCO masks{more}."
        )


def _open_drawing(data: bytes, number: int, size: Size) -> Image:
    return _decode(_open_mask(data, number, size), number)


def _to_grey(mask: Image) -> Image:
    """Convert a mask as the WebUI does: by its alpha, or else by its brightness."""
    alpha = mask.getchannel("A") if mask.mode in ("RGBA", "LA") else None
    return alpha if alpha and alpha.getextrema()[0] < 255 else mask.convert("L")


def _masks_in(path: Path, numbers: Sequence[int], count: int, size: Size) -> tuple[Image, ...]:
    with open_source(path) as source:
        info = source.info
        _require_count(info.frames, count)
        require_size((info.width, info.height), size)
        wanted = numbers if info.frames > 1 else (0,)
        images = (source.frame(number) for number in wanted)
        if isinstance(source, VideoReader):  # video codecs change black and white a little
            return tuple(to_image(read_levels(image)) for image in images)
        return tuple(fromarray(image).convert("L") for image in images)


def to_image(share: Share) -> Image:
    """Convert a mask from 0 to 1 to a grey image."""
    return fromarray(np.rint(share * 255).astype(np.uint8))


def _require_count(masks: int, frames: int) -> None:
    if masks not in (1, frames):
        raise SettingsError(
            f"There are {masks} masks for {frames} frames; give one for all frames, or one for "
            "every frame of the source."
        )


def require_size(mask: Size, frames: Size) -> None:
    """Refuse a mask of another size than the frames, because its position is unknown."""
    if mask != frames:
        raise SettingsError(
            f"The mask is {mask[0]}x{mask[1]}, the frames are {frames[0]}x{frames[1]}; give a mask "
            "of the frames' size."
        )


def _open_mask(data: bytes, place: int, size: Size) -> Image:
    """Open a mask by its header, because a small file can name a size that fills the memory."""
    try:
        mask = open_image(io.BytesIO(data))
    except Exception as error:  # Pillow raises errors of any class for broken or enormous images
        raise SettingsError(
            f"masks[{place}] cannot be read as an image ({len(data)} bytes); send a PNG of the "
            "frames' size."
        ) from error
    require_size(mask.size, size)
    return mask


def _decode(mask: Image, place: int) -> Image:
    try:
        mask.load()
    except Exception as error:
        raise SettingsError(
            f"masks[{place}] is a damaged image ({mask.format}); save it again."
        ) from error
    return mask


def encode_alone(p: Any, masks: Sequence[Image], encode: Callable[[], Any]) -> list[Any]:
    """Let the WebUI encode each image of a batch alone, because it takes one mask at a time.

    Args:
        encode: the WebUI's own `p.init`
    Returns:
        each image's mask as it is laid over the result
    """
    images = p.init_images
    latents, conditions, kept, changed = [], [], [], []
    overlays: list[Any] = []
    colors: list[Any] = []
    shown: list[Any] = []
    for image, mask in zip(images, masks, strict=True):
        p.init_images, p.image_mask, p.batch_size = [image], mask, 1
        p.color_corrections = p.overlay_images = None
        encode()
        latents.append(p.init_latent)
        conditions.append(p.image_conditioning)
        kept.append(p.mask)
        changed.append(p.nmask)
        overlays += p.overlay_images or ()
        colors += p.color_corrections or ()
        shown.append(p.mask_for_overlay)
    p.init_images, p.batch_size = images, len(images)
    p.init_latent, p.image_conditioning = torch.cat(latents), torch.cat(conditions)
    p.mask, p.nmask = torch.stack(kept), torch.stack(changed)
    p.overlay_images, p.color_corrections = overlays, colors or None
    return shown
