"""`modules.images`: pictures to the size and mode of the sampling."""

from __future__ import annotations

from PIL import Image, ImageOps

_CROP, _FILL = 1, 2


def flatten(img: Image.Image, bgcolor: str) -> Image.Image:
    """RGB, transparent parts over a colour."""
    if img.mode == "RGBA":
        img = Image.alpha_composite(Image.new("RGBA", img.size, bgcolor), img)
    return img.convert("RGB")


def resize_image(
    resize_mode: int, im: Image.Image, width: int, height: int, upscaler_name: str | None = None
) -> Image.Image:
    """0 stretches, 1 crops, 2 fills the border."""
    blocks = upscaler_name == "Blocks"
    size, method = (width, height), Image.Resampling[("LANCZOS", "NEAREST")[blocks]]
    if resize_mode == _CROP:
        return ImageOps.fit(im, size, method)
    if resize_mode == _FILL:
        return ImageOps.pad(im, size, method)
    return im.resize(size, method)
