"""Masks of an inpainting: one for all frames, one for each, or a few that are carried."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image, fromarray
from PIL.Image import open as open_image

from fresco.errors import SettingsError
from fresco.video.folder import find_images
from fresco.video.numbering import number_images
from fresco.video.reader import open_source
from fresco.webui.img2img.request import Request

Size = tuple[int, int]
"""Width and height."""


def collect_masks(request: Request, numbers: Sequence[int], count: int, size: Size
             ) -> tuple[Image, ...]:
    """One mask for all keyframes, one for each of them, or none.

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


def find_drawings(request: Request, count: int) -> Path | None:
    """The folder of masks, where it holds those of several frames, but not of all: drawings, to be
    carried to the others.

    Args:
        count: frames of the source.
    """
    path = Path(request.masks_path)
    if not request.masks_path or not path.is_dir():
        return None
    images = find_images(path)[0]
    drawn = 1 < len(images) < count and number_images(images) is not None
    return path if drawn else None


def _masks_in(path: Path, numbers: Sequence[int], count: int, size: Size) -> tuple[Image, ...]:
    with open_source(path) as source:
        info = source.info
        _require_count(info.frames, count)
        require_size((info.width, info.height), size)
        wanted = numbers if info.frames > 1 else (0,)
        return tuple(fromarray(source.frame(number)).convert("L") for number in wanted)


def _require_count(masks: int, frames: int) -> None:
    if masks not in (1, frames):
        raise SettingsError(
            f"There are {masks} masks for {frames} frames; give one for all frames, or one for "
            "every frame of the source."
        )


def require_size(mask: Size, frames: Size) -> None:
    """Refuse a mask of another size than the frames: nothing says where it belongs."""
    if mask != frames:
        raise SettingsError(
            f"The mask is {mask[0]}x{mask[1]}, the frames are {frames[0]}x{frames[1]}; give a mask "
            "of the frames' size."
        )


def _open_mask(data: bytes, place: int, size: Size) -> Image:
    """A mask of which only the header was read: a small file can name a size that fills the
    memory."""
    try:
        mask = open_image(io.BytesIO(data))
    except Exception as error:  # Pillow raises of every kind on broken or enormous images
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
    """Let the WebUI encode each image of a batch alone, since it takes one mask at a time.

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
