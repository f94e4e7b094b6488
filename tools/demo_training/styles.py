"""Looks that classical filters give an image: what the demo model learns to imitate.

All take and return [H, W, 3] RGB uint8 and are deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]
Filter = Callable[[RGB], RGB]

_PIXEL = 8
"""Side of a block of pixel art; the autoencoder's factor, so that a block is one latent."""


def _saturate(image: RGB, factor: float, *, value: float = 1.0) -> RGB:
    """Saturation and brightness times a factor each."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 1:] = np.clip(hsv[..., 1:] * (factor, value), 0, 255)
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB), np.uint8)


def _edges(image: RGB, sigma: float) -> NDArray[np.float32]:
    """Gradient magnitude of the blurred brightness, about 0 to 1."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    grey = cv2.GaussianBlur(grey, (0, 0), sigma)
    return np.hypot(cv2.Scharr(grey, cv2.CV_32F, 1, 0), cv2.Scharr(grey, cv2.CV_32F, 0, 1)) / 4


def oil(image: RGB) -> RGB:
    """Each pixel becomes the mean of the commonest brightness around it."""
    levels, radius = 9, 5
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.int32) * levels // 256
    best = np.full(grey.shape, -1.0, np.float32)
    result = np.zeros(image.shape, np.float32)
    size = (2 * radius + 1, 2 * radius + 1)
    for level in range(levels):
        mask = (grey == level).astype(np.float32)
        share = cv2.GaussianBlur(mask, size, 0)
        colour = cv2.GaussianBlur(image * mask[..., None], size, 0)
        colour /= np.maximum(share, 1e-4)[..., None]
        wins = share > best
        best[wins], result[wins] = share[wins], colour[wins]
    return _saturate(np.clip(result, 0, 255).astype(np.uint8), 1.5, value=1.05)


def watercolour(image: RGB) -> RGB:
    """Flat washes, lighter than the source, with darker rims, on warm paper."""
    flat = cv2.pyrMeanShiftFiltering(image, 8, 24, maxLevel=1)
    flat = _saturate(np.asarray(flat, np.uint8), 1.25).astype(np.float32)
    light = 255 - (255 - flat) * 0.62
    rims = np.clip(_edges(image, 1.6) * 2.2, 0, 0.45)[..., None]
    paper = np.array([1.0, 0.985, 0.94], np.float32)
    return np.clip(light * (1 - rims * 0.7) * paper, 0, 255).astype(np.uint8)


def sketch(image: RGB) -> RGB:
    """Graphite on white paper: brightness divided by its own blur."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    lines = grey / np.maximum(cv2.GaussianBlur(grey, (0, 0), 6), 8)
    shade = 0.86 + 0.14 * grey / 255
    drawn = 255 * np.clip(lines, 0, 1) ** 2.2 * shade
    return np.repeat(np.clip(drawn, 0, 255)[..., None], 3, axis=2).astype(np.uint8)


def cartoon(image: RGB) -> RGB:
    """Few flat, bright colours inside black outlines."""
    flat = image
    for _ in range(3):
        flat = cv2.bilateralFilter(flat, 7, 40, 5)
    flat = _saturate(np.asarray(flat, np.uint8), 1.7, value=1.15)
    flat = (flat.astype(np.float32) / 51).round() * 51
    lines = np.clip((_edges(image, 1.4) - 0.14) * 10, 0, 1)[..., None]
    return np.clip(flat * (1 - lines), 0, 255).astype(np.uint8)


def night(image: RGB) -> RGB:
    """Dark and blue, lights stay yellow."""
    light = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None] / 255
    tone = light**1.5
    blue = tone * np.array([60, 85, 165], np.float32) + np.array([6, 10, 34], np.float32)
    lamps = np.clip((light - 0.8) * 5, 0, 1) * np.array([120, 95, 10], np.float32)
    return np.clip(0.85 * blue + 0.15 * image * tone + lamps, 0, 255).astype(np.uint8)


def autumn(image: RGB) -> RGB:
    """Greens turn orange, everything grows warmer."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float32)
    hue, green = hsv[..., 0], (hsv[..., 0] > 22) & (hsv[..., 0] < 95)
    hsv[..., 0] = np.where(green, 8 + (hue - 22) * 0.16, hue)
    hsv[..., 1] = np.clip(hsv[..., 1] * np.where(green, 1.6, 1.15), 0, 255)
    warm = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)
    return np.clip(warm * (1.12, 0.93, 0.68) + (22, 8, 0), 0, 255).astype(np.uint8)


def pixel_art(image: RGB) -> RGB:
    """Blocks of one colour out of few."""
    height, width = image.shape[:2]
    small = cv2.resize(
        image, (max(1, width // _PIXEL), max(1, height // _PIXEL)), interpolation=cv2.INTER_AREA
    )
    small = (_saturate(np.asarray(small, np.uint8), 1.5).astype(np.float32) / 36.4).round() * 36.4
    return np.asarray(cv2.resize(
        np.clip(small, 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
    ), np.uint8)


def neon(image: RGB) -> RGB:
    """Glowing outlines, pink to cyan, over a dark image."""
    line = np.clip(_edges(image, 1.4) * 3.2, 0, 1)
    glow = np.clip(line + 0.8 * cv2.GaussianBlur(line, (0, 0), 4), 0, 1)[..., None]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None] / 255
    colour = (1 - grey) * np.array([255, 40, 190], np.float32) + grey * np.array([30, 230, 255])
    base = image * 0.16 + grey * np.array([30, 10, 55], np.float32)
    return np.clip(base + glow * colour, 0, 255).astype(np.uint8)


def photo(image: RGB) -> RGB:
    """The image itself."""
    return image


STYLES: Mapping[str, tuple[Filter, tuple[str, ...]]] = {
    "oil painting": (oil, ("an oil painting", "oil on canvas", "a thick oil painting")),
    "watercolour": (watercolour, (
        "a watercolour painting", "a watercolor painting", "watercolor", "watercolour on paper",
    )),
    "pencil sketch": (sketch, ("a pencil sketch", "a pencil drawing", "graphite sketch")),
    "cartoon": (cartoon, ("a cartoon", "a cartoon drawing", "cartoon style, comic book")),
    "night": (night, ("a photo at night", "night scene", "in the dark of night, moonlight")),
    "autumn": (autumn, ("a photo in autumn", "autumn colours", "fall season, orange leaves")),
    "pixel art": (pixel_art, ("pixel art", "pixel art of an old video game", "8-bit pixel art")),
    "neon": (neon, ("neon lights, cyberpunk", "a neon drawing", "glowing neon outlines")),
    "photo": (photo, ("a photo", "a photograph", "photo, realistic")),
}
"""Names, filters, and the words a prompt may ask for each with."""
